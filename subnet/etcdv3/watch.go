package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/subnet"
)

// Watch implements subnet.Store with a gRPC stream of its own: clientv3's watcher resumes by itself after a break,
// also on a store with another history, where it would wait for ever. Any end of the stream is an error here.
func (s *Store) Watch(ctx context.Context, after subnet.Position, from int64, f func([]subnet.Event)) error {
	if from == 0 {
		from = after.Revision + 1
	}
	ctx, cancel := context.WithCancelCause(clientv3.WithRequireLeader(ctx))
	defer cancel(nil)
	stream, err := s.openWatch(ctx, from)
	if err != nil {
		return fmt.Errorf("watch etcd %s: %w", s.servers(), plainly(err))
	}
	seen := &seen{store: s, revision: after.Revision}
	checked := make(chan struct{})
	go func() {
		defer close(checked)
		cancel(s.check(ctx, after, seen))
	}()
	defer func() {
		cancel(nil)
		<-checked
	}()
	var batch []subnet.Event
	junk := 0
	for {
		resp, err := stream.Recv()
		if why := context.Cause(ctx); err != nil && why != nil && !errors.Is(why, context.Canceled) {
			err = why
		}
		if err != nil {
			return fmt.Errorf("watch etcd %s: %w", s.servers(), plainly(err))
		}
		if err := checkWatch(resp, after, from); err != nil {
			return err
		}
		seen.take(resp.Events)
		if resp.Created {
			batch = append(batch, subnet.Event{Revision: resp.Header.GetRevision()})
		}
		batch = append(batch, s.events(resp.Events, &junk)...)
		// etcd cuts what is large into fragments, also within a revision.
		if len(batch) > 0 && !resp.Fragment {
			seen.handing(true)
			f(batch)
			seen.handing(false)
			batch = nil
		}
	}
}

// openWatch asks for the changes from a revision on.
func (s *Store) openWatch(ctx context.Context, from int64) (pb.Watch_WatchClient, error) {
	client, err := s.connected(ctx)
	if err != nil {
		return nil, err
	}
	stream, err := pb.NewWatchClient(client.ActiveConnection()).Watch(ctx)
	if err != nil {
		return nil, err
	}
	first, end := s.all()
	create := &pb.WatchCreateRequest{Key: []byte(first), RangeEnd: []byte(end), StartRevision: from, Fragment: true}
	return stream, stream.Send(&pb.WatchRequest{
		RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create},
	})
}

// checkWatch says why a watch cannot go on.
func checkWatch(resp *pb.WatchResponse, after subnet.Position, from int64) error {
	h := resp.Header
	switch {
	case resp.CompactRevision != 0:
		return fmt.Errorf("compacted up to revision %d: %w", resp.CompactRevision, subnet.ErrHistory)
	case resp.Canceled:
		return fmt.Errorf("watch canceled by etcd: %.200s: %w", resp.CancelReason, subnet.ErrHistory)
	// etcd's grpc-proxy does not tell it to those who share a watch
	case h.GetClusterId() != 0 && h.GetClusterId() != after.Cluster:
		return fmt.Errorf("cluster %x answers instead of %x: %w", h.GetClusterId(), after.Cluster, subnet.ErrHistory)
	case resp.Created && h.GetRevision() < after.Revision:
		return fmt.Errorf("store at revision %d, below %d: the store was wiped or restored: %w", h.GetRevision(),
			after.Revision, subnet.ErrHistory)
	}
	for _, ev := range resp.Events {
		if ev.Kv.ModRevision < from {
			return fmt.Errorf("etcd sent a change at revision %d, before revision %d: the store was wiped or restored: %w",
				ev.Kv.ModRevision, from, subnet.ErrHistory)
		}
	}
	return nil
}

// events translates what a watch has sent; junk counts the keys that no record can have, of which only the first are
// told.
func (s *Store) events(in []*mvccpb.Event, junk *int) []subnet.Event {
	out := make([]subnet.Event, 0, len(in))
	for _, ev := range in {
		e := s.event(ev.Kv, ev.Type == mvccpb.Event_DELETE)
		if isJunk(e.Bad) {
			*junk++
		}
		if e.Revision != 0 && (*junk <= maxJunk || !isJunk(e.Bad)) {
			out = append(out, e)
		}
	}
	return out
}

// event tells what became of a key; the zero value: it is none of ours.
func (s *Store) event(kv *mvccpb.KeyValue, deleted bool) subnet.Event {
	name := s.name(kv.Key)
	ev := subnet.Event{Revision: kv.ModRevision}
	isRecord := strings.HasPrefix(name, subnet.SubnetsFolder)
	switch {
	case name == configName:
		ev.ConfigSet = true
		if !deleted {
			ev.Config = kv.Value
		}
		return ev
	case !isRecord && !strings.HasPrefix(name, subnet.ClaimsFolder):
		return subnet.Event{}
	case deleted:
		ev.Deleted = name
		return ev
	}
	e, err := s.entry(kv)
	switch {
	case err == nil:
		ev.Put = &e
	case isRecord:
		bad := s.bad(kv, err)
		ev.Bad = &bad
	default:
		return subnet.Event{}
	}
	return ev
}
