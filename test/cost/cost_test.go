//go:build !race

// Package cost counts what a message costs, in allocations and in instructions,
// and compares with what it cost when somebody last looked: 10 % more fails.
// Counts hardly depend on how busy the machine is, so they can be compared where
// times can't. The race detector adds costs of its own, so the package is empty
// under it and has a command of its own:
//
//	go test ./test/cost            # allocations; -update writes the file anew
//	go test -tags instructions ./test/cost   # and instructions: it wants valgrind
package cost

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the files anew")

// compare holds what a message costs, by work, to testdata/UNIT.txt.
func compare(t *testing.T, unit string, got map[string]float64) {
	t.Helper()
	file := "testdata/" + unit + ".txt"
	if *update {
		var b bytes.Buffer
		for _, name := range slices.Sorted(maps.Keys(got)) {
			fmt.Fprintf(&b, "%8.2f %s\n", got[name], name)
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		number, name, _ := strings.Cut(string(bytes.TrimSpace(line)), " ")
		limit, err := strconv.ParseFloat(number, 64)
		if err != nil {
			t.Fatalf("%s: %q: %v", file, line, err)
		}
		t.Logf("%s: %.2f %s a message, %.2f in the file", name, got[name], unit, limit)
		if got[name] > limit*1.1 {
			t.Errorf("%s: %.2f %s a message, more than 10 %% above the %.2f in %s: find out why, or write it anew with -update and say why in the commit", name, got[name], unit, limit, file)
		}
	}
}
