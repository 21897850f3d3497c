package keeper

import (
	"math/rand/v2"
	"time"
)

// backoff is a pause that doubles from try to try, with jitter. The zero value is a first try.
type backoff struct{ last time.Duration }

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 2500 * time.Millisecond // after an error: a store that comes back is noticed within 5 s
	slowPause  = 5 * time.Second         // at most, after a slow write: the store is overloaded, and may still apply it
	racePause  = 400 * time.Millisecond  // after a lost race: a subnet is taken before its peers stop to linger
)

// next returns the pause before the next try, between one half of its length and the whole.
func (b *backoff) next(first, most time.Duration) time.Duration {
	b.last = min(max(first, 2*b.last), most)
	return b.last/2 + rand.N(b.last/2)
}

// pace bounds how often something is tried, whatever asks for it and however it ends: the first try after a quiet time
// is free, and the pauses between those that follow grow.
type pace struct {
	last time.Time // of the last try
	from time.Time // no try before
	backoff
}

// quietTime is how long nothing must have been tried for the next try to count as a first one.
const quietTime = 10 * time.Second

// tried takes in that a try ended just now.
func (p *pace) tried(most time.Duration) {
	now := time.Now()
	if now.Sub(p.last) > quietTime {
		p.backoff = backoff{}
	}
	p.last = now
	p.from = now.Add(p.next(firstPause, most))
}

// rest puts off the next try by a pause at least.
func (p *pace) rest(pause time.Duration) {
	if from := time.Now().Add(pause); from.After(p.from) {
		p.from = from
	}
}

// at returns the earliest time, not before t, when the next try may be made.
func (p *pace) at(t time.Time) time.Time {
	if t.Before(p.from) {
		return p.from
	}
	return t
}
