package node

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
)

// An update of the catalog goes to another node as one answer, compressed: whole,
// its rows repeat each other's words, and a catalog of the most queues there may
// be would not fit otherwise.

// maxUpdate bounds what an update may be unpacked to.
const maxUpdate = 1 << 30

func packUpdate(update []byte) []byte {
	if update == nil {
		return nil
	}
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(update)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // a known level, and a buffer takes all
	}
	return b.Bytes()
}

func unpackUpdate(packed []byte) ([]byte, error) {
	update, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxUpdate+1))
	if err != nil {
		return nil, fmt.Errorf("an update of the catalog is damaged: %w", err)
	}
	if len(update) > maxUpdate {
		return nil, message.Errorf(message.TooLarge, "an update of the catalog has more than %d bytes", maxUpdate)
	}
	return update, nil
}

// follow asks for what is newer than a View and returns the View that it leads to;
// nil: there was nothing. What does not fit is asked for anew, as a whole.
func follow(old *catalog.View, ask func(version uint64) ([]byte, error)) (*catalog.View, []catalog.Change, error) {
	var version uint64
	if old != nil {
		version = old.Version
	}
	update, err := ask(version)
	if err != nil || len(update) == 0 {
		return nil, nil, err
	}
	newer, changes, err := catalog.Follow(old, update)
	if err == nil {
		return newer, changes, nil
	}
	if update, err = ask(0); err != nil {
		return nil, nil, err
	}
	return catalog.Follow(nil, update)
}
