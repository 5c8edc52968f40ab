package issuer

import (
	"cmp"
	"time"
)

// Idle returns a channel that gives when no order is under way, an abandoned one included.
func (i *Issuer) Idle() <-chan struct{} {
	c := make(chan struct{})
	go func() {
		i.slot <- struct{}{}
		<-i.slot
		close(c)
	}()
	return c
}

// Hurry shortens the time that a server may take: for one Issue, for one request, and to finalize. 0 changes nothing.
func (i *Issuer) Hurry(issue, request, finalize time.Duration) {
	i.within = deadlines{cmp.Or(issue, i.within.issue), cmp.Or(request, i.within.request), cmp.Or(finalize, i.within.finalize)}
}
