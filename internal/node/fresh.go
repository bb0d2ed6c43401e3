package node

import (
	"context"
	"time"

	"github.com/comanda-mq/comanda/internal/catalog"
	"github.com/comanda-mq/comanda/internal/message"
)

// freshen makes the catalog here as new as a read wants it: it holds all that was
// confirmed before the call or, with within > 0, is no older than that. An error
// means that it can't be told to be so.
func (n *Node) freshen(ctx context.Context, within time.Duration) (f message.Freshness, err error) {
	f.ServedBy, f.Role = n.config.NodeName, "follower"
	here, cancel := context.WithTimeout(ctx, refreshHere)
	defer cancel()
	g, m, ok := n.catalogHere()
	if ok && g.Status().Leading {
		f.Role = "leader"
	}
	if ok && within > 0 && m.Trusted() {
		f.Age, err = g.ReadWithin(here, within)
	} else {
		err = n.refreshOwn(here)
	}
	if err == nil || len(n.others(catalog.MetaGroup)) == 0 {
		return f, err
	}
	f.Role = "follower"
	f.Age, err = n.freshenCopy(ctx, within)
	return f, err
}

// freshenCopy is freshen where no replica of the catalog can answer: another node
// is asked for what is new, unless one was a moment ago. What was asked at t, by
// this node's own clock, holds all that was confirmed before t.
func (n *Node) freshenCopy(ctx context.Context, within time.Duration) (age time.Duration, err error) {
	if at := n.copied.Load(); at != nil && within > 0 {
		if age = n.config.Clock.Now().Sub(*at); age <= within {
			return age, nil
		}
	}
	asked := n.config.Clock.Now()
	if err := n.watchOnce(ctx, true); err != nil || within == 0 {
		return 0, err
	}
	if age = n.config.Clock.Now().Sub(asked); age > within {
		return 0, message.Errorf(message.Unavailable, "the catalog came after %s, and may be %s old", age, within)
	}
	return age, nil
}
