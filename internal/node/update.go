package node

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"

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
