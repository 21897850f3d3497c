// Package trigger wakes goroutines: by a signal that is kept until it is taken, or after a pause.
package trigger

import (
	"context"
	"time"
)

// Trigger is a signal for one goroutine, which receives from it. It is kept until it is received; several that come
// meanwhile are one.
type Trigger chan struct{}

// New returns a trigger that was not set.
func New() Trigger { return make(Trigger, 1) }

// Set never blocks. Any goroutine may call it.
func (t Trigger) Set() {
	select {
	case t <- struct{}{}:
	default:
	}
}

// Pause returns after a time, or with the error of ctx as soon as that ends.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
