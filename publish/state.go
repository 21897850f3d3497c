package publish

import (
	"cmp"
	"slices"

	"flanneld/subnet"
)

// save writes what the next run must know, if it has changed.
func (p *Publisher) save(v subnet.View) error {
	st := p.o.State
	st.Network, st.Config, st.Own, st.Until = p.o.Network, v.Text, v.Own, v.Until.UTC()
	st.Store = cmp.Or(p.saved.Store, p.o.State.Store)
	if v.Status.Held {
		st.Store = v.Position.Cluster
	}
	st.MACs = map[string]string{}
	for name, mac := range p.o.Backend.MACs() {
		st.MACs[name] = mac.String()
	}
	scope := p.o.Backend.Scope()
	st.Links, st.Networks = scope.Links, scope.Networks
	if p.same(st) {
		return nil
	}
	if err := p.o.StateDir.Save(st); err != nil {
		return err
	}
	p.saved = st
	return nil
}

// saveFirstPeers writes the peers before the first state of a host that had none. A next run that had its lease and no
// peers, and did not reach the store, would take those in the kernel for leftovers and remove them.
func (p *Publisher) saveFirstPeers() error {
	if len(p.o.State.Own.Leases) > 0 || len(p.saved.Own.Leases) > 0 {
		return nil
	}
	return p.peers.save()
}

// saveOtherHistory writes the peers if this run has not yet, or if the store was wiped or restored since, also where
// they are the same as before. A next run would take that store for another one than its last, and wait for a valid
// network configuration.
func (p *Publisher) saveOtherHistory(now subnet.Position) error {
	if p.peers.holds(now) {
		return nil
	}
	p.peers.changed.Set()
	return p.peers.save()
}

func (p *Publisher) same(st subnet.State) bool {
	return p.saved.Own.Equal(st.Own) && p.saved.Store == st.Store && p.saved.Until.Equal(st.Until) &&
		p.saved.Config == st.Config && slices.Equal(p.saved.Links, st.Links)
}
