package firewall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"flanneld/firewall/foreign"
)

// Remove takes away what a daemon that has ended has left for a network, and says what it was; dry: it only says. Rules
// of flannel stay.
func Remove(ctx context.Context, network string, dry bool) ([]string, error) {
	f := New(network, slog.New(slog.DiscardHandler))
	f.host.Only, f.host.Dry = true, dry
	return f.removeAll(ctx, dry)
}

func (f *Firewall) removeAll(ctx context.Context, dry bool) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var done []string
	found, err := f.edge.read(f.names.table)
	if err != nil {
		if f.edge.diagnose() == nil {
			return nil, err
		}
		found = table{} // a kernel without nf_tables has none of ours
	}
	if found.name != "" {
		t := foreign.Table{Family: foreign.INet, Name: found.name}
		done = append(done, fmt.Sprintf("nftables table %s", t))
		if !dry {
			err = f.edge.remove(t)
		}
	}
	chains, listed := f.edge.chains()
	if listed != nil {
		chains = nil
	}
	if !dry {
		if problem := f.admitLocked(ctx, Rules{}, chains); problem != "" {
			err = errors.Join(err, errors.New(problem))
		}
	}
	out := f.host.Pass(ctx, foreign.Input{Chains: chains})
	for _, p := range out.Problems {
		err = errors.Join(err, errors.New(p))
	}
	return append(done, out.Done...), err
}
