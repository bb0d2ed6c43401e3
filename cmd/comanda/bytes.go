package main

import (
	"errors"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// bytesFlag is a size in a flag; 0 has a default of its own.
type bytesFlag uint64

func (n *bytesFlag) Set(text string) error {
	v, err := parseBytes(text)
	if err == nil {
		*n = bytesFlag(v)
	}
	return err
}

func (n *bytesFlag) String() string {
	if *n == 0 {
		return ""
	}
	shift := min(bits.TrailingZeros64(uint64(*n))/10, 4)
	return strconv.FormatUint(uint64(*n)>>(10*shift), 10) + [...]string{"B", "KiB", "MiB", "GiB", "TiB"}[shift]
}

func (*bytesFlag) Type() string { return "bytes" }

// parseBytes reads a size: a number with an optional unit, KiB, MiB, GiB or TiB.
func parseBytes(s string) (uint64, error) {
	digits := strings.TrimRight(s, "KMGTiBkb")
	shift, ok := map[string]uint{"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[s[len(digits):]]
	v, err := strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil || v > math.MaxInt64>>shift {
		return 0, errors.New("want a number of bytes with KiB, MiB or GiB behind it, as 512MiB")
	}
	return v << shift, nil
}
