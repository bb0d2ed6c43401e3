package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

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
