package extension

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"flanneld/ip"
	"flanneld/subnet"
)

// remember takes in the peers of earlier runs. Those that are still peers are added again, for the host may have been
// restarted.
func (b *Backend) remember(former []subnet.Record) {
	var entries []*subnet.Entry
	for _, r := range former {
		r.Leases = slices.DeleteFunc(slices.Clone(r.Leases), func(l subnet.Lease) bool { return l.BackendType != Type })
		entries = append(entries, &subnet.Entry{Record: r})
	}
	for key, p := range peersOf(subnet.PeersOfEntries(entries...)) {
		b.states[key] = &state{former: p}
	}
}

// begin starts the commands that are due for the hosts that are wanted, and for those that have left. The channel is
// closed when all that run have ended.
func (b *Backend) begin(hosts map[netip.Prefix]peer) (ended <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key := range hosts {
		if b.states[key] == nil {
			b.states[key] = &state{}
		}
	}
	now, pass := time.Now(), &sync.WaitGroup{}
	for key, s := range b.states {
		want := hosts[key] // the zero value if it has left
		if s.running || b.closed || now.Before(s.next) {
			continue
		}
		if s.done == want && (want != (peer{}) || s.former == (peer{})) {
			if want == (peer{}) {
				delete(b.states, key)
			}
			continue
		}
		s.running = true
		pass.Add(1)
		b.running.Go(func() {
			defer pass.Done()
			b.follow(s, want)
		})
	}
	done := make(chan struct{})
	go func() { // ends with the commands, which have a time limit
		pass.Wait()
		close(done)
	}()
	return done
}

// follow runs the commands that take one host from what it is to what it should be.
func (b *Backend) follow(s *state, want peer) {
	b.slots <- struct{}{}
	defer func() { <-b.slots }()
	b.mu.Lock()
	is, round := s.done, b.round
	if is == (peer{}) && s.former != want {
		is = s.former
	}
	b.mu.Unlock()
	var err error
	if is != (peer{}) {
		err = b.remove(is)
		is = peer{} // whether it has succeeded or not: it is not run again
	}
	if want != (peer{}) {
		if err = b.add(want); err == nil {
			is = want
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.running, s.done = false, is; is == want || s.former != want {
		s.former = peer{} // else the add command has failed for what may stand since then
	}
	if round != b.round {
		s.expire() // it ran while the underlay was away
	}
	if err == nil || want == (peer{}) {
		s.failure, s.fails, s.next = nil, 0, time.Time{}
	} else {
		s.failed(err, time.Now())
	}
}

// add runs the add command. Where a run before has left what it adds, a command such as "ip route add" fails: then what
// stands there is removed first.
func (b *Backend) add(p peer) error {
	if len(b.options.SubnetAdd) == 0 {
		return nil
	}
	_, said, err := b.runner.run(b.options.SubnetAdd, p.vars(), p.data+"\n")
	if err != nil && len(b.options.SubnetRemove) > 0 && b.runner.ctx.Err() == nil {
		if _, _, removed := b.runner.run(b.options.SubnetRemove, p.vars(), p.data+"\n"); removed == nil {
			_, said, err = b.runner.run(b.options.SubnetAdd, p.vars(), p.data+"\n")
		}
	}
	return b.say("peer added", p, said, err)
}

// remove runs the remove command, once: a host that has left is not asked about again.
func (b *Backend) remove(p peer) error {
	if len(b.options.SubnetRemove) == 0 {
		return nil
	}
	_, said, err := b.runner.run(b.options.SubnetRemove, p.vars(), p.data+"\n")
	if err = b.say("peer removed", p, said, err); err != nil && b.runner.ctx.Err() == nil {
		b.host.Log.Warn("SubnetRemoveCommand failed, it is not tried again", "peer", p.name(), "error", err)
	}
	return err
}

func (b *Backend) say(what string, p peer, said string, err error) error {
	if err == nil {
		b.host.Log.Info(what, "peer", p.name(), "output", said)
	}
	return err
}

func (p peer) name() string {
	return cmp.Or(text(p.subnet4, p.subnet4.IsValid()), text(p.subnet6, p.subnet6.IsValid()))
}

func (b *Backend) await(ended <-chan struct{}) {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
	}
}

// errs are what has failed, in the form in which the daemon tells which peers are concerned: as routes to them.
type errs ip.OpErrors

func (e errs) orNil() error {
	if len(e) == 0 {
		return nil
	}
	return ip.OpErrors(e)
}

var errRuns = errors.New("the command still runs")

// failures returns what is not done of what is wanted.
func (b *Backend) failures(hosts map[netip.Prefix]peer) (out errs) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, want := range hosts {
		s := b.states[key]
		if s == nil || s.done == want {
			continue
		}
		err := fmt.Errorf("SubnetAddCommand: %w", cmp.Or(s.failure, errRuns))
		for _, r := range want.routes() {
			out = append(out, &ip.OpError{Op: ip.Op{Create: true, Object: r}, Err: err})
		}
	}
	return out
}

func (p peer) routes() (out []ip.Route) {
	if p.subnet4.IsValid() {
		out = append(out, ip.Route{Dst: p.subnet4, Via: p.public4})
	}
	if p.subnet6.IsValid() {
		out = append(out, ip.Route{Dst: p.subnet6, Via: p.public6})
	}
	return out
}
