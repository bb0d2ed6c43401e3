package node

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A node whose groups have lost their majority is not ready, and says of which; at
// length, also of what is well.
func TestNodeWithoutMajorityIsNotReady(t *testing.T) {
	ms := startCluster(t, 3)
	voters(t, ms[0], 3)
	ms[1].stop()
	ms[2].stop()
	ready := func(query string) (int, string) {
		w := httptest.NewRecorder()
		ms[0].serveReady(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz"+query, nil))
		return w.Code, w.Body.String()
	}
	eventually(t, "no group has a leader", func() bool {
		code, text := ready("")
		return code == http.StatusServiceUnavailable && strings.Contains(text, "group 1 has no leader\n") && !strings.Contains(text, "disk")
	})
	if code, text := ready("?verbose"); code != http.StatusServiceUnavailable || !strings.Contains(text, "failed: group 1 has no leader\n") || !strings.Contains(text, "ok: the disk has") {
		t.Error(code, text)
	}
}
