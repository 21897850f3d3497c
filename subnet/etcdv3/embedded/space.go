package embedded

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"flanneld/subnet/etcdv3/join"
	"flanneld/trigger"
)

const (
	spacePause  = time.Minute // between two looks at the file of the store
	leastUnused = 64 << 20    // bytes of it that are worth to be freed
)

// worthDefragment reports whether the member is to write its file anew: much of it is not in use. etcd uses such space
// again, so that nothing is gained by more.
func worthDefragment(s join.Space) bool {
	return s.Size-s.Used >= leastUnused && s.Size-s.Used > s.Size/2
}

// mayDisarm reports whether a member whose file had reached the quota has room for changes again.
func mayDisarm(s join.Space) bool { return s.Size < s.Quota/10*8 }

// errFull says that the alarm of the store cannot be cleared.
var errFull = errors.New("the embedded etcd takes no changes: what it holds beside the network's records fills its " +
	"quota; delete it with etcdctl (docs/embedded-etcd.md says how to use it)")

// endpoint returns where this host reaches its own member.
func (m *Member) endpoint() string {
	addr := m.o.Listen.Addr()
	if addr.IsUnspecified() {
		addr = loopback(addr)
	}
	return "https://" + netip.AddrPortFrom(addr, m.o.Listen.Port()).String()
}

// Maintain frees space in the file of this member if that is worth it. If etcd takes no changes because the file has
// reached the quota, it also drops the history, and clears the alarm once there is room.
func (m *Member) Maintain(ctx context.Context) error {
	s, err := m.admin.Space(ctx, m.endpoint())
	if err != nil || s.Learner || !s.Alarm && !worthDefragment(s) {
		return err
	}
	if s.Alarm {
		m.o.Log.Warn("the embedded etcd takes no changes: its file has reached the quota, compacting and defragmenting it",
			"size", s.Size, "quota", s.Quota)
		if err := m.admin.Compact(ctx); err != nil {
			return err
		}
	}
	if err := m.admin.Defragment(ctx, m.endpoint()); err != nil {
		return err
	}
	before := s.Size
	if s, err = m.admin.Space(ctx, m.endpoint()); err != nil {
		return err
	}
	m.o.Log.Info("embedded etcd defragmented", "before", before, "size", s.Size)
	switch {
	case !s.Alarm:
		return nil
	case !mayDisarm(s):
		return errFull
	}
	if err := m.admin.Disarm(ctx, m.endpoint()); err != nil {
		return err
	}
	m.o.Log.Info("the embedded etcd takes changes again", "size", s.Size, "quota", s.Quota)
	return nil
}

// keepSpace maintains the file of this member until ctx ends.
func (m *Member) keepSpace(ctx context.Context) {
	last := ""
	for trigger.Pause(ctx, spacePause) == nil {
		switch err := m.Maintain(ctx); {
		case err == nil:
			last = ""
		case ctx.Err() == nil && err.Error() != last: // once for each reason
			last = err.Error()
			m.o.Log.Error("free space in the embedded etcd failed, retrying", "error", err)
		}
	}
}
