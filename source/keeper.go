package source

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"flanneld/backend/check"
	"flanneld/subnet"
	"flanneld/subnet/keeper"
)

// FromStore returns a source on a store, and the network configuration once it is known: that of the file, if the
// options name one, else the store's.
func FromStore(ctx context.Context, store subnet.Store, h Host) (*keeper.Keeper, subnet.Config, error) {
	o := keeperOptions(h)
	n, err := waitNetwork(ctx, store, h, o)
	if err != nil {
		return nil, subnet.Config{}, err
	}
	return keeper.New(store, n, o), n.Config, nil
}

func keeperOptions(h Host) keeper.Options {
	name, err := os.Hostname()
	if err != nil {
		h.Log.Warn("host name unknown", "error", err)
	}
	f, live := h.Options, h.live()
	o := keeper.Options{
		Identity: h.State.Identity, Host: name, Prefix: f.EtcdPrefix,
		TTL: f.SubnetLeaseTTL, RenewMargin: f.SubnetLeaseRenewMargin, PeerGrace: f.PeerGrace, OnLost: f.OnLostSubnet,
		Check: check.Config, Follow: h.Follow, Adjusts: check.Adjusts, Attrs: live.attrs, Valid: live.valid, Log: h.Log,
		Avoid:    func() []netip.Prefix { return live.Connected().Prefixes() },
		Reserved: func() []netip.Prefix { return live.Connected().Reserved(live.Underlay().Link) },
	}
	if len(h.State.Own.Leases) > 0 {
		if err := h.State.Usable(f.EtcdPrefix, time.Now()); err != nil {
			h.Log.Warn("saved state not used", "reason", err)
		} else {
			o.State = h.State
		}
	}
	if e, err := subnet.ReadEnv(f.SubnetFile); err == nil {
		o.Wanted = e.Subnets
	} else if !errors.Is(err, os.ErrNotExist) {
		h.Log.Warn("subnet file not used", "reason", err)
	}
	return o
}

func waitNetwork(ctx context.Context, store subnet.Store, h Host, o keeper.Options) (keeper.Network, error) {
	if path := h.Options.NetConfigPath; path != "" {
		c, text, err := configOf(path)
		return keeper.Fixed(c, text), err
	}
	h.Report.Waiting("waiting for the network configuration")
	return keeper.WaitConfig(ctx, store, keeper.ConfigOptions{
		Prefix: o.Prefix, Check: o.Check, State: o.State, Log: o.Log, Report: h.Report.Awaiting,
	})
}
