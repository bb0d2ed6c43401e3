package gateway

import (
	"slices"
	"testing"
	"time"

	"github.com/comanda-mq/comanda/internal/liveness"
)

// While the monitor can't be reached, what waits for it does not grow with each
// broken connection: of each session the newest is enough. A beat comes again by
// itself.
func TestReportsThatWaitAreBounded(t *testing.T) {
	report := func(session, attachment uint64, e liveness.Event) liveness.Report {
		return liveness.Report{Session: session, Incarnation: 1, Attachment: attachment, Event: e}
	}
	s := &sessions{reports: []liveness.Report{report(1, 1, liveness.Lost), report(2, 1, liveness.Lost)}}
	for n := uint64(2); n < 100; n++ {
		under := s.bundle(time.Time{})
		s.reports = []liveness.Report{report(1, n, liveness.Beat), report(1, n, liveness.Lost)}
		s.keep(under)
	}
	s.keep([]liveness.Report{report(3, 1, liveness.Beat), report(4, 1, liveness.Lost), report(4, 2, liveness.Beat), report(4, 2, liveness.Goodbye)})
	for _, want := range []liveness.Report{report(1, 99, liveness.Lost), report(2, 1, liveness.Lost), report(4, 2, liveness.Goodbye)} {
		if !slices.Contains(s.reports, want) {
			t.Errorf("%+v is missing", want)
		}
	}
	if len(s.reports) != 4 {
		t.Errorf("%d reports wait: %+v", len(s.reports), s.reports)
	}
}
