package native

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/comanda-mq/comanda/internal/message"
)

// Any web page can make a browser send requests to a server on loopback, and a
// name that resolves to loopback (DNS rebinding) even lets it read the answers.
// What such a request can't forge are its Host and its Origin.

// AllowHosts answers for loopback names and for the given names, which may carry
// a port: those that the server listens on, is reached by, or was told to allow.
func AllowHosts(names ...string) func(host string) bool {
	allowed := make(map[string]bool, len(names))
	for _, n := range names {
		if h := hostname(n); h != "" {
			allowed[h] = true
		}
	}
	return func(host string) bool {
		h := hostname(host)
		if h == "localhost" || allowed[h] {
			return true
		}
		ip, err := netip.ParseAddr(h)
		return err == nil && ip.Unmap().IsLoopback()
	}
}

// hostname is the name in "name", "name:port", "[ip]" or "[ip]:port", in lower
// case; empty if there is none.
func hostname(hostport string) string {
	h := hostport
	if name, _, err := net.SplitHostPort(hostport); err == nil {
		h = name
	} else if len(h) > 1 && h[0] == '[' && h[len(h)-1] == ']' {
		h = h[1 : len(h)-1]
	}
	return strings.ToLower(h)
}

// ForeignOrigin is FOREIGN_ORIGIN if a request names a host that is not allowed,
// as its own or as the origin of the page that sent it, and nil otherwise.
// Programs send no origin.
func ForeignOrigin(allowed func(host string) bool, host string, origins []string) *message.Error {
	if !allowed(host) {
		return message.Errorf(message.ForeignOrigin,
			"host %.100q is not a name of this server: use localhost or the address that it listens on, or start it with --allowed-host", host)
	}
	for _, o := range origins {
		u, err := url.Parse(o)
		if err != nil || u.Host == "" || !allowed(u.Host) {
			return message.Errorf(message.ForeignOrigin,
				"origin %.100q is not a name of this server: its pages may not call it unless the server is started with --allowed-host", o)
		}
	}
	return nil
}

// CheckHost refuses requests with a foreign Host or Origin with 403, before next
// sees them.
func CheckHost(allowed func(host string) bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := ForeignOrigin(allowed, r.Host, r.Header.Values("Origin")); err != nil {
			writeError(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}
