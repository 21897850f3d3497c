package lab

import (
	"context"
	"fmt"

	"flanneld/api"
	"flanneld/subnet/etcdv3/embedded"
	"flanneld/subnet/etcdv3/join"
)

// WantVoters returns an error unless so many of the members of a store vote and are healthy.
func WantVoters(members []api.Member, want int) error {
	n := 0
	for _, m := range members {
		if m.Healthy && !m.Learner {
			n++
		}
	}
	if n != want {
		return fmt.Errorf("%d healthy voters, want %d: %+v", n, want, members)
	}
	return nil
}

// KnowsMembers waits until the daemon of a host knows so many members of an embedded store that vote.
func (h *Host) KnowsMembers(ctx context.Context, want int) error {
	return Await(ctx, func() error {
		j, _ := join.Load(embedded.Folder(h.StateDir()))
		if len(j.Endpoints) != want {
			return fmt.Errorf("%s knows the members %s of the store, want %d", h.Name(), j.Endpoints, want)
		}
		return nil
	})
}
