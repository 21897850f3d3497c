package subnet

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is the growing pause between tries: 100 ms at first, 3 s at most, each with jitter.
type backoff struct{ last time.Duration }

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 3 * time.Second
)

func (b *backoff) next() time.Duration {
	b.last = min(max(firstPause, 2*b.last), maxPause)
	return b.last/2 + rand.N(b.last/2)
}

// idle reports whether the last try succeeded.
func (b *backoff) idle() bool { return b.last == 0 }

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
