package etcdv3

import (
	"context"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"flanneld/subnet"
)

// Watch implements subnet.Store with a gRPC stream of its own: clientv3's watcher resumes by itself after a break,
// also on a store with another history, where it would wait for ever. Any end of the stream is an error here.
func (s *Store) Watch(ctx context.Context, after subnet.Position, f func([]subnet.Event)) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	client, err := s.connected(ctx)
	if err != nil {
		return fmt.Errorf("watch etcd %s: %w", s.servers, err)
	}
	stream, err := pb.NewWatchClient(client.ActiveConnection()).Watch(ctx, grpc.MaxCallRecvMsgSize(maxMessage), grpc.WaitForReady(false))
	if err != nil {
		return fmt.Errorf("watch etcd %s: %w", s.servers, err)
	}
	from, end := s.all()
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(from), RangeEnd: []byte(end), StartRevision: after.Revision + 1,
	}}})
	if err != nil {
		return fmt.Errorf("watch etcd %s: %w", s.servers, err)
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("watch etcd %s: %w", s.servers, err)
		}
		if err := checkWatch(resp, after); err != nil {
			return err
		}
		switch {
		case resp.Created:
			f(nil)
		case len(resp.Events) > 0:
			f(s.events(resp.Events))
		}
	}
}

// maxMessage bounds one message of the watch, in bytes: ten thousand records that change at once.
const maxMessage = 64 << 20

// checkWatch says why a watch cannot go on.
func checkWatch(resp *pb.WatchResponse, after subnet.Position) error {
	h := resp.Header
	switch {
	case resp.CompactRevision != 0:
		return fmt.Errorf("compacted up to revision %d: %w", resp.CompactRevision, subnet.ErrHistory)
	case resp.Canceled:
		return fmt.Errorf("watch canceled by etcd: %s", resp.CancelReason)
	case h.GetClusterId() != 0 && h.GetClusterId() != after.Cluster: // etcd's grpc-proxy does not tell it to those who share a watch
		return fmt.Errorf("cluster %x answers instead of %x: %w", h.GetClusterId(), after.Cluster, subnet.ErrHistory)
	case resp.Created && h.GetRevision() < after.Revision:
		return fmt.Errorf("store at revision %d, below %d: wiped or restored: %w", h.GetRevision(), after.Revision, subnet.ErrHistory)
	}
	return nil
}

func (s *Store) events(in []*mvccpb.Event) []subnet.Event {
	out := make([]subnet.Event, 0, len(in))
	for _, ev := range in {
		if e := s.event(ev.Kv, ev.Type == mvccpb.Event_DELETE); e.Revision != 0 {
			out = append(out, e)
		}
	}
	return out
}

// event tells what became of a key; the zero value: it is none of ours.
func (s *Store) event(kv *mvccpb.KeyValue, deleted bool) subnet.Event {
	name := strings.TrimPrefix(string(kv.Key), s.prefix)
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
