package lab

import (
	"context"
	"fmt"

	"flanneld/subnet/etcdv3/embedded"
	"flanneld/subnet/etcdv3/join"
)

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
