package underlay

import (
	"context"
	"sync"
	"time"

	"flanneld/ip"
	"flanneld/trigger"
)

const (
	// underlayPeriod is how often the interfaces are looked at although the kernel has announced nothing.
	underlayPeriod = 5 * time.Second
	// underlayPause is how long after a change they are looked at: a host that boots announces hundreds at a time.
	underlayPause = 100 * time.Millisecond
)

// Watching is what Wait asks of ip.Kernel.
type Watching interface {
	Watch(ctx context.Context, f func(ip.Event)) error
}

// Wait calls choose until it succeeds, at each change in the kernel and from time to time. It calls waiting
// with the reason whenever that is another one than before. It returns an error only when ctx ends.
func Wait(ctx context.Context, k Watching, choose func() (ip.Underlay, error),
	waiting func(reason error)) (ip.Underlay, error) {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	wake := trigger.New()
	watch.Go(func() {
		_ = k.Watch(ctx, func(ip.Event) { wake.Set() }) // without it, the period alone wakes
	})
	period := time.NewTicker(underlayPeriod)
	defer period.Stop()
	for said := ""; ; {
		u, err := choose()
		if err == nil {
			return u, nil
		}
		if err.Error() != said {
			said = err.Error()
			waiting(err)
		}
		select {
		case <-wake:
		case <-period.C:
		case <-ctx.Done():
		}
		if err := trigger.Pause(ctx, underlayPause); err != nil {
			return ip.Underlay{}, err
		}
	}
}
