package backend

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"flanneld/trigger"
)

// runs runs the datapaths of planners that come and go.
type runs struct {
	changed trigger.Trigger

	mu      *sync.Mutex // guards all below
	members []*member
	running map[*member]*running
}

// running is a datapath that runs.
type running struct {
	cancel context.CancelFunc
	ended  chan struct{} // closed when it has ended
}

func newRuns(m *member) runs {
	return runs{trigger.New(), &sync.Mutex{}, []*member{m}, map[*member]*running{}}
}

// use sets which datapaths run, beside those that are to be stopped.
func (r *runs) use(members []*member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members = members
	r.changed.Set()
}

// stop ends datapaths, and returns when they have.
func (r *runs) stop(members ...*member) {
	for _, m := range members {
		r.mu.Lock()
		one := r.running[m]
		delete(r.running, m)
		r.members = slices.DeleteFunc(slices.Clone(r.members), func(o *member) bool { return o == m })
		r.mu.Unlock()
		if one != nil {
			one.cancel()
			<-one.ended
		}
	}
}

// run runs the datapaths until ctx ends, and returns nil then.
func (r *runs) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for ctx.Err() == nil {
		r.start(ctx, cancel)
		select {
		case <-ctx.Done():
		case <-r.changed:
		}
	}
	r.mu.Lock()
	members := slices.Collect(maps.Keys(r.running))
	r.mu.Unlock()
	r.stop(members...)
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// start starts what does not run yet.
func (r *runs) start(ctx context.Context, failed context.CancelCauseFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.members {
		d, ok := m.Planner.(Datapath)
		if !ok || r.running[m] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		one := &running{cancel, make(chan struct{})}
		r.running[m] = one
		go func() {
			defer close(one.ended)
			if err := d.Run(ctx); err != nil {
				failed(err)
			}
		}()
	}
}
