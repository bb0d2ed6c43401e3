package gateway

import (
	"errors"
	"sync"

	"github.com/comanda-mq/comanda/internal/message"
)

// each calls f for every element at the same time and waits for all of them;
// for a single one, as most calls have, right here.
func each[T any](xs []T, f func(*T)) {
	if len(xs) == 1 {
		f(&xs[0])
		return
	}
	var wg sync.WaitGroup
	for i := range xs {
		wg.Go(func() { f(&xs[i]) })
	}
	wg.Wait()
}

// text is an error's words without its code.
func text(err error) string {
	var e *message.Error
	if errors.As(err, &e) {
		return e.Text
	}
	return err.Error()
}
