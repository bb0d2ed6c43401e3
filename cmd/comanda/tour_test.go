//go:build unix && tour

package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write what the commands of docs/tour.md print into it; then read the diff")

const (
	tourFile = "../../docs/tour.md"
	// tourLimit is how long one command may take.
	tourLimit = 2 * time.Minute
	tourMark  = "== the command ended with "
)

// What docs/tour.md tells a reader to type works, and prints what stands there. It
// needs bash, and a minute: '.ci/run tour' runs it.
func TestTour(t *testing.T) {
	file, err := os.ReadFile(tourFile)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(file), "\n")
	steps := tourSteps(lines)
	if len(steps) < 20 {
		t.Fatalf("%s has %d commands", tourFile, len(steps))
	}
	if *rewrite {
		defer func() {
			if err := os.WriteFile(tourFile, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
				t.Error(err)
			}
		}()
	}
	shell := newTourShell(t)
	same := map[string]string{}
	grown := 0 // by what was written before
	for _, s := range steps {
		printed, ended := shell.run(s.command)
		if ended != "0" {
			t.Fatalf("%s:%d: $ %s\nends with %s:\n%s", tourFile, s.line, s.command, ended, strings.Join(printed, "\n"))
		}
		err := shown(s.shows, printed, same)
		if err != nil && !*rewrite {
			t.Fatalf("%s:%d: $ %s\n%v\nIt printed:\n%s", tourFile, s.line, s.command, err, strings.Join(printed, "\n"))
		}
		if err != nil {
			begin := s.line + strings.Count(s.command, "\n") + grown
			lines = slices.Replace(lines, begin, begin+len(s.shows), printed...)
			grown += len(printed) - len(s.shows)
		}
	}
}

// tourStep is a command and the lines under it.
type tourStep struct {
	line    int // from 1, where the command begins
	command string
	shows   []string
}

// tourSteps are the commands behind "$ " in fenced blocks. A command goes on in the
// next line where a line ends with a backslash; blocks without a "$ " are not run.
func tourSteps(lines []string) (steps []tourStep) {
	var inside, typed, goesOn bool
	for i, line := range lines {
		last := len(steps) - 1
		command, begins := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "```"):
			inside, typed, goesOn = !inside, false, false
		case inside && goesOn:
			steps[last].command += "\n" + line
			goesOn = strings.HasSuffix(line, `\`)
		case inside && begins:
			steps = append(steps, tourStep{line: i + 1, command: command})
			typed, goesOn = true, strings.HasSuffix(line, `\`)
		case inside && typed:
			steps[last].shows = append(steps[last].shows, line)
		}
	}
	return steps
}

// What is different each time: ids, which must be the same where they are the same
// in the file; times and durations; and the width of columns.
var (
	tourID     = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)
	tourTime   = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|\b\d\d:\d\d:\d\d\b|\b[\d.]+(ms|µs|s)\b`)
	tourSpaces = regexp.MustCompile(` {2,}`)
)

// shown tells where the lines that were printed are not those that the file shows. A
// line "…" stands for any lines, and "…" in a line for any text.
func shown(shows, printed []string, same map[string]string) error {
	want, got := tourLines(shows), tourLines(printed)
	for len(want) > 0 {
		if want[0] == "…" {
			want = want[1:]
			for len(got) > 0 && (len(want) == 0 || !lineShown(want[0], got[0], same)) {
				got = got[1:]
			}
			continue
		}
		if len(got) == 0 || !lineShown(want[0], got[0], same) {
			return fmt.Errorf("this line does not come: %s", want[0])
		}
		want, got = want[1:], got[1:]
	}
	if len(got) > 0 {
		return fmt.Errorf("this line is not shown: %s", got[0])
	}
	return nil
}

func tourLines(lines []string) (out []string) {
	for _, line := range lines {
		line = tourTime.ReplaceAllString(strings.TrimRight(line, " "), "TIME")
		out = append(out, tourSpaces.ReplaceAllString(line, "  "))
	}
	return out
}

func lineShown(want, got string, same map[string]string) bool {
	wants, gots := tourID.FindAllString(want, -1), tourID.FindAllString(got, -1)
	pattern := regexp.QuoteMeta(tourID.ReplaceAllString(want, "ID"))
	pattern = "^" + strings.ReplaceAll(pattern, "…", ".*") + "$"
	if !regexp.MustCompile(pattern).MatchString(tourID.ReplaceAllString(got, "ID")) {
		return false
	}
	for i, id := range wants {
		if i >= len(gots) || (same[id] != "" && same[id] != gots[i]) {
			return false
		}
	}
	for i, id := range wants {
		same[id] = gots[i]
	}
	return true
}

// tourShell is a bash that runs one command after the other, as a reader's does.
type tourShell struct {
	t       *testing.T
	in      io.Writer
	printed chan string
	ports   *strings.Replacer // from those in the file to free ones
	back    *strings.Replacer
}

func newTourShell(t *testing.T) *tourShell {
	var to, from []string
	for _, prefix := range []string{"74", "75"} {
		free := "127.0.0.1:" + freePrefix(t)
		to = append(to, "localhost:"+prefix, free)
		from = append(from, free, "127.0.0.1:"+prefix)
	}
	s := &tourShell{t: t, printed: make(chan string), ports: strings.NewReplacer(to...), back: strings.NewReplacer(from...)}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal("the tour is typed into bash, and there is none: install it")
	}
	cmd := exec.Command(bash, "--noprofile", "--norc")
	cmd.Dir = t.TempDir()
	// A group of its own, so that the servers that it starts end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	s.in = stdin
	go func() {
		defer close(s.printed)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.printed <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
		for range s.printed {
		}
		_ = out.Close()
	})
	// One server listens where it is told to, and needs no free disk.
	listen := s.ports.Replace("--listen localhost:7400 --cluster-listen localhost:7401")
	fmt.Fprintf(s.in, "comanda() { case $1 in serve) shift; command comanda serve %s --disk-reserve 1MiB \"$@\";; *) command comanda \"$@\";; esac; }\n", listen)
	fmt.Fprintf(s.in, "export COMANDA_SERVER=%s\n", s.ports.Replace("localhost:7400"))
	return s
}

// run gives the lines that a command printed, and how it ended.
func (s *tourShell) run(command string) (printed []string, ended string) {
	fmt.Fprintf(s.in, "%s\necho \"%s$?\"\n", s.ports.Replace(command), tourMark)
	limit := time.After(tourLimit)
	for {
		select {
		case line, more := <-s.printed:
			if !more {
				return printed, "the end of the shell"
			}
			line, rc, last := strings.Cut(line, tourMark)
			if line = strings.TrimRight(s.back.Replace(line), " "); line != "" || !last {
				printed = append(printed, line)
			}
			if last {
				return printed, rc
			}
		case <-limit:
			return printed, "nothing after " + tourLimit.String()
		}
	}
}

// freePrefix are the digits before the last two of ports, of which those that the
// file uses were free a moment ago.
func freePrefix(t *testing.T) string {
next:
	for range 100 {
		prefix := strconv.Itoa(100 + rand.IntN(220)) // below those that systems give to clients
		for _, last := range []string{"00", "01", "10", "11", "20", "21", "30", "31"} {
			l, err := net.Listen("tcp", "127.0.0.1:"+prefix+last)
			if err != nil {
				continue next
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		return prefix
	}
	t.Fatal("found no free ports")
	return ""
}
