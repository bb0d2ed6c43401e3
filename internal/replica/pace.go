package replica

import "math"

// Pacing. A snapshot that takes longer than the log is kept is sent in vain: its
// receiver lacks entries, and gets another one. So while one is on its way, or
// its receiver catches up, and the log has grown over its budget, every group that
// is led here proposes less and less, down to a sixteenth of what it proposed
// before. Its commands wait in their box, as for a slow disk; what is written here
// for leaders elsewhere is theirs to slow. If the log still grows over twice its
// budget, the receiver is given up and nothing is slowed, until the next snapshot.
const (
	slowestPace = 1.0 / 16
	// leastPace is how many bytes of commands a group may propose in a tick at any
	// pace.
	leastPace = 64 << 10
	// slowDown and speedUp change the pace at each tick: 5 s to the slowest, and
	// from there 1 s to full speed, so that a learner that has caught up is made a
	// voter before it can fall behind again.
	slowDown, speedUp = 0.95, 1.25
)

// setPace is called at each tick.
func (h *Host) setPace() {
	live := h.liveBytes()
	over := live > h.o.LogBudget
	// Who has its snapshot is slowed for until it is there: what is kept for it may
	// fit the budget, and the load still be faster than it is.
	if live <= h.snapshotBudget() && (over && h.sending != nil || (over || h.pace < 1) && h.someFed()) {
		h.pace = max(h.pace*slowDown, slowestPace)
	} else {
		h.pace = min(h.pace*speedUp, 1)
	}
	for _, g := range *h.groups.Load() {
		g.setPace(h.pace)
	}
}

func (h *Host) someFed() bool {
	for _, g := range *h.groups.Load() {
		if g.fed.to != 0 {
			return true
		}
	}
	return false
}

// paced is what a group proposes between two ticks, in bytes.
type paced struct {
	usual int64 // in a tick at full speed, averaged over the last few
	most  int64 // until the next tick; 0: no limit
	spent int64 // since the last tick, and what it owes for a command over most
}

func (g *Group) setPace(pace float64) {
	p := &g.paced
	if pace == 1 {
		if p.most == 0 {
			p.usual += (p.spent - p.usual) / 8
		}
		p.most, p.spent = 0, 0
		return
	}
	if p.most == 0 {
		p.spent = 0
	}
	p.spent = max(p.spent-p.most, 0)
	p.most = max(int64(float64(p.usual)*pace), leastPace)
}

// left is how many bytes the group may propose until the next tick.
func (p *paced) left() int64 {
	if p.most == 0 {
		return math.MaxInt64
	}
	return p.most - p.spent
}
