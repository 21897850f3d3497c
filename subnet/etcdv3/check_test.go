package etcdv3_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"

	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
)

// silent is a store behind a proxy: its watch begins and says nothing any more, whatever becomes of the store.
type silent struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer

	mu     sync.Mutex // guards answer
	answer *pb.RangeResponse
}

func (s *silent) say(r *pb.RangeResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = r
}

func (s *silent) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answer, nil
}

func (s *silent) Watch(stream pb.Watch_WatchServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := stream.Send(&pb.WatchResponse{Header: head(9), Created: true}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

func TestAWatchThatStaysSilentOverAnotherStoreEnds(t *testing.T) {
	t.Parallel()
	record := func(changed, lease int64) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{
			Key: []byte(prefix + "/subnets/10.5.34.0-24"), CreateRevision: 5, ModRevision: changed, Lease: lease,
			Value: []byte(`{"PublicIP":"192.0.2.1"}`),
		}
	}
	answer := func(h *pb.ResponseHeader, kvs ...*mvccpb.KeyValue) *pb.RangeResponse {
		return &pb.RangeResponse{Header: h, Kvs: kvs}
	}
	tests := []struct {
		name   string
		answer *pb.RangeResponse
		reason string
	}{
		{"of another cluster", answer(&pb.ResponseHeader{ClusterId: 7, Revision: 9}, record(7, 3)), "cluster 7"},
		{"of a lower revision", answer(head(8), record(7, 3)), "below 9"},
		{"in which the record has another lease", answer(head(20), record(7, 4)), "wiped or restored"},
		{"in which the record is older", answer(head(20), record(6, 3)), "wiped or restored"},
		{"in which the record is missing", answer(head(20)), "does not tell"},
		{"in which the record has changed", answer(head(20), record(12, 3)), "does not tell"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			fake := &silent{answer: answer(head(9), record(7, 3))}
			server := grpc.NewServer()
			pb.RegisterKVServer(server, fake)
			pb.RegisterWatchServer(server, fake)
			go func() { _ = server.Serve(l) }()
			t.Cleanup(server.Stop)
			s := newStore(t, etcdv3.Options{Endpoints: []string{"http://" + l.Addr().String()}})
			etcdv3.CheckEach(s, 20*time.Millisecond)
			snap, err := s.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err = s.Watch(ctx, snap.Position, 0, func([]subnet.Event) { fake.say(tt.answer) })
			if !errors.Is(err, subnet.ErrHistory) || !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("got %v, want ErrHistory with %q", err, tt.reason)
			}
		})
	}
}
