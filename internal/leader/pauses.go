package leader

import (
	"slices"

	"github.com/comanda-mq/comanda/internal/message"
	"github.com/comanda-mq/comanda/internal/queue"
)

// pauses are the keys and tenants of a line of which nothing is taken into its
// windows. Apply looks as well, by their names.
type pauses struct {
	list          []message.Pause
	keys, tenants map[uint64]bool
}

func (p *pauses) holds(o queue.Offer) bool { return p.keys[o.Key] || p.tenants[o.Tenant] }

// pause takes in the queue's pauses. When they change the windows begin anew: they
// lack what was paused, or have what now is.
func (l *line) pause(info *queue.Info) {
	if slices.Equal(l.pauses.list, info.Pauses) {
		return
	}
	l.pauses = pauses{list: info.Pauses, keys: map[uint64]bool{}, tenants: map[uint64]bool{}}
	for i, p := range info.Pauses {
		if p.Tenant != "" {
			l.pauses.tenants[info.Hashes[i]] = true
		} else {
			l.pauses.keys[info.Hashes[i]] = true
		}
	}
	for _, c := range l.cells {
		l.forgetTurns(c)
		c.window = &window{}
	}
	l.hungry = nil
}
