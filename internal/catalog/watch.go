package catalog

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Nodes without a replica of the meta group follow the catalog: they ask for
// what is newer than their View (Since) and apply it (Follow). An update is
//
//	command version (1) | whole? (1) | from (8) | to (8) | rows
//	row: length of the key | key | 1 + length of the value, or 0: deleted | value
//
// with lengths as uvarints. A whole update holds all rows there are and fits
// every View.

// Limits of how much is remembered of how a View came about.
const (
	maxSteps     = 1_024
	maxStepBytes = 4 << 20
)

// step is what one entry wrote.
type step struct {
	from uint64 // version before
	rows []byte
}

// tail holds the last steps that led to a View, each beginning where the one
// before ended. Views share its array: only the machine appends, to the newest.
type tail struct {
	steps []step
	bytes int
}

func (t tail) with(s step) tail {
	t.steps = append(t.steps, s)
	t.bytes += len(s.rows)
	for len(t.steps) > maxSteps || t.bytes > maxStepBytes {
		t.bytes -= len(t.steps[0].rows)
		t.steps = t.steps[1:]
	}
	return t
}

// Since encodes what brings a View of an older version to this one: the rows
// that changed, if that is still known, else all rows (as for 0). It is nil if
// the other View is as new.
func (v *View) Since(version uint64) []byte {
	switch {
	case version >= v.Version:
		return nil
	case version == 0:
		return v.all()
	}
	for i, s := range v.tail.steps {
		if s.from == version {
			b := appendHeader(nil, false, version, v.Version)
			for _, s := range v.tail.steps[i:] {
				b = append(b, s.rows...)
			}
			return b
		}
	}
	return v.all()
}

// all encodes every row.
func (v *View) all() []byte {
	b := appendHeader(nil, true, 0, v.Version)
	b = appendRow(b, v.Cluster.key(), encode(v.Cluster))
	b = appendTable(b, &v.groups)
	b = appendTable(b, &v.nodes)
	b = appendTable(b, &v.operations)
	b = appendTable(b, &v.queues)
	return appendTable(b, &v.sessions)
}

func appendTable[R row](b []byte, t *table[uint64, R]) []byte {
	for _, x := range t.sorted() {
		b = appendRow(b, x.key(), encode(x))
	}
	return b
}

func appendHeader(b []byte, whole bool, from, to uint64) []byte {
	flag := byte(0)
	if whole {
		flag = 1
	}
	b = append(b, commandVersion, flag)
	b = binary.BigEndian.AppendUint64(b, from)
	return binary.BigEndian.AppendUint64(b, to)
}

const headerBytes = 18

// appendRow appends a row; value is nil if it was deleted.
func appendRow(b, key, value []byte) []byte {
	b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
	if value == nil {
		return append(b, 0)
	}
	return append(binary.AppendUvarint(b, 1+uint64(len(value))), value...)
}

// Follow applies an update of Since to the View that it was asked for; a whole
// one fits every View, also nil. The View that it gets stays as it is. changes
// are nil if anything may have changed. After an error a follower asks anew, for
// all (Since(0)).
func Follow(v *View, update []byte) (newer *View, changes []Change, err error) {
	if len(update) < headerBytes || update[0] != commandVersion {
		return nil, nil, errors.New("catalog: an update is damaged or of a newer version: start the newer binary")
	}
	whole := update[1] == 1
	from, to := binary.BigEndian.Uint64(update[2:]), binary.BigEndian.Uint64(update[10:])
	next := &View{}
	if !whole {
		if v == nil || v.Version != from || to <= from {
			return nil, nil, fmt.Errorf("catalog: an update leads from version %d to %d: it does not fit", from, to)
		}
		*next = *v
		next.tail = tail{} // of somebody else's making
		changes = []Change{}
	}
	next.Version = to
	for rows := update[headerBytes:]; len(rows) > 0; {
		var key, value []byte
		if key, value, rows, err = cutRow(rows); err != nil {
			return nil, nil, err
		}
		c, told, err := next.take(key, value)
		if err != nil {
			return nil, nil, err
		}
		if told && !whole {
			changes = append(changes, c)
		}
	}
	return next, changes, nil
}

// take applies a row to a View that nobody has seen yet; told is false if there
// is nothing to tell.
func (v *View) take(key, value []byte) (c Change, told bool, err error) {
	if value != nil {
		x, err := decodeRow(key, value)
		if err != nil {
			return Change{}, false, err
		}
		c, told = v.set(x)
		return c, told, nil
	}
	x, ok := v.find(key)
	if !ok {
		return Change{}, false, nil // made and deleted within the update
	}
	return v.unset(x), true, nil
}

func cutRow(b []byte) (key, value, rest []byte, err error) {
	if key, b, err = cutField(b, 0); err == nil && len(key) > 0 {
		value, b, err = cutField(b, 1)
	} else if err == nil {
		err = errTorn
	}
	return key, value, b, err
}

var errTorn = errors.New("catalog: an update ends within a row")

// cutField cuts a field whose length is written with an offset; the field is nil
// if what is written is below the offset.
func cutField(b []byte, offset uint64) (field, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > offset+uint64(len(b)-size) {
		return nil, nil, errTorn
	}
	b = b[size:]
	if n < offset {
		return nil, b, nil
	}
	return b[:n-offset], b[n-offset:], nil
}
