package gateway

import (
	"encoding/base64"
	"testing"

	"github.com/comanda-mq/comanda/internal/message"
)

// FuzzPage: a page is taken in the one form that a list gave it in, and names a place
// that there is.
func FuzzPage(f *testing.F) {
	for _, p := range []place{{}, {Cell: 15, Key: []byte("x12345678")}, {Queue: "orders", Cell: 3}} {
		f.Add(writePage(p))
	}
	for _, s := range []string{"", "x", "e30", `{"c":16}`, `{"c":-1}`, `{"c":1,"d":2}`, `{"c":1}{}`, `{"c": 1}`, `{"C":1}`, `{"q":"a b","c":1}`, `null`, `[]`} {
		f.Add(s)
		f.Add(base64.RawURLEncoding.EncodeToString([]byte(s)))
	}
	f.Fuzz(func(t *testing.T, page string) {
		p, err := readPage(page)
		switch {
		case err != nil && message.CodeOf(err) != message.InvalidArgument:
			t.Error(err)
		case err == nil && page != "" && writePage(p) != page:
			t.Errorf("%q is taken for %q", page, writePage(p))
		case err == nil && (p.Cell < 0 || p.Cell >= message.Cells):
			t.Errorf("%q names cell %d", page, p.Cell)
		}
	})
}
