package peer

import "sync/atomic"

// Stats counts since New.
type Stats struct {
	MessagesSent     uint64 // given to Send
	MessagesLost     uint64 // of those, the ones that certainly never left
	MessagesReceived uint64
	BytesWritten     uint64 // handshakes apart
	BytesRead        uint64
	Refused          uint64 // accepted connections that ended in their handshake
	Connections      int    // open now, in both directions
}

type counters struct {
	messagesSent, messagesLost, messagesReceived, bytesWritten, bytesRead, refused atomic.Uint64
}

// Stats tells what has passed so far.
func (p *Peers) Stats() Stats {
	return Stats{
		MessagesSent:     p.stats.messagesSent.Load(),
		MessagesLost:     p.stats.messagesLost.Load(),
		MessagesReceived: p.stats.messagesReceived.Load(),
		BytesWritten:     p.stats.bytesWritten.Load(),
		BytesRead:        p.stats.bytesRead.Load(),
		Refused:          p.stats.refused.Load(),
		Connections:      len(p.open()),
	}
}
