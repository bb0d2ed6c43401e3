package leader

import (
	"slices"
	"strings"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/queue"
)

// letGo forgets the cells of a line that were spun off, with what was leased and
// timed in them: the leader of their group has it now.
func (g *Group) letGo(l *line) {
	gone := func(n int) bool {
		return !slices.ContainsFunc(l.shards, func(s queue.ShardInfo) bool { return s.From <= n && n <= s.To })
	}
	if !slices.ContainsFunc(l.cells, func(c *cell) bool { return gone(c.number) }) {
		return
	}
	for _, d := range g.leases.of(l.number) {
		if gone(d.key.cell) {
			g.endLease(d.key, d.fence)
		}
	}
	l.cells = slices.DeleteFunc(l.cells, func(c *cell) bool {
		if gone(c.number) {
			g.unschedule(c)
			l.forgetTurns(c)
			return true
		}
		return false
	})
}

// ofCell says that an effect is about a message that is in its cell.
func ofCell(k queue.EffectKind) bool {
	return k == queue.Offered || k == queue.Withdrawn || k == queue.LeaseSet || k == queue.Due
}

// tookOver says that a shard is here which the catalog has in another group: it
// was spun off into this one, and perhaps split since.
func (l *line) tookOver(s *catalog.Shard) bool {
	return slices.ContainsFunc(l.shards, func(x queue.ShardInfo) bool {
		return x.Epoch > s.Epoch && (x.Path == s.Path || strings.HasPrefix(x.Path, s.Path+"."))
	})
}
