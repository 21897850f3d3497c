package etcdv3_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
)

// liar is a server that answers every question with the same bytes, or with an error if one is set.
type liar struct {
	addr   string
	answer atomic.Pointer[[]byte]
	fail   atomic.Pointer[error]
}

// raw passes messages on as they are.
type raw struct{}

func (raw) Name() string                  { return "proto" }
func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func newLiar(t testing.TB) *liar {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out := &liar{addr: l.Addr().String()}
	server := grpc.NewServer(grpc.ForceServerCodec(raw{}),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			var question []byte
			if err := stream.RecvMsg(&question); err != nil {
				return err
			}
			if fail := out.fail.Load(); fail != nil {
				return *fail
			}
			return stream.SendMsg(out.answer.Load())
		}))
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return out
}

// ask makes all calls of a store; each gets the answer.
func (l *liar) ask(ctx context.Context, s *etcdv3.Store, answer []byte) (errs map[string]error) {
	l.answer.Store(&answer)
	r := subnet.Record{Identity: "X", Leases: []subnet.Lease{lease("10.5.34.0/24", "192.0.2.1", "vxlan", vtep)}}
	pair := subnet.Record{Leases: []subnet.Lease{r.Leases[0], lease("fd00:5:0:22::/64", "2001:db8::1", "vxlan", vtep)}}
	e := subnet.Entry{Record: r, Key: r.Key(), Revision: 7, LeaseID: 3}
	errs = map[string]error{
		"list":        second(s.List(ctx)),
		"grant":       second(s.Grant(ctx, time.Hour)),
		"renew":       second(s.KeepAlive(ctx, 3)),
		"create":      second(s.Create(ctx, r, 3)),
		"create pair": second(s.Create(ctx, pair, 3)),
		"update":      second(s.Update(ctx, e, r, 3)),
		"move": second(s.Update(ctx, e, pair, 3,
			subnet.Entry{Record: r, Key: "claims/10.5.34.0-24", Revision: 8, LeaseID: 4})),
		"delete": s.Delete(ctx, e),
		"config": s.PutConfig(ctx, nil, netConfig),
		"rights": s.MayWrite(ctx),
	}
	errs["watch"] = s.Watch(ctx, subnet.Position{Cluster: 1, Revision: 6}, 0, func([]subnet.Event) {})
	return errs
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func head(revision int64) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 1, MemberId: 2, Revision: revision}
}

func TestAnAnswerThatMakesNoSenseIsAnErrorThatSaysSo(t *testing.T) {
	t.Parallel()
	key := func(name string) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte(prefix + "/" + name), CreateRevision: 5, ModRevision: 7, Version: 1,
			Value: []byte("{}")}
	}
	changed := func(kv *mvccpb.KeyValue, f func(*mvccpb.KeyValue)) *mvccpb.KeyValue { f(kv); return kv }
	ranges := func(kvs ...*mvccpb.KeyValue) *pb.RangeResponse { return &pb.RangeResponse{Header: head(9), Kvs: kvs} }
	event := func(ev *mvccpb.Event) *pb.WatchResponse {
		return &pb.WatchResponse{Header: head(9), Events: []*mvccpb.Event{ev}}
	}
	put := &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}}
	got := &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{}}}
	tests := []struct {
		name, call string
		answer     proto.Message
	}{
		{"nothing", "list", &pb.RangeResponse{}},
		{"no revision", "list", &pb.RangeResponse{Header: &pb.ResponseHeader{ClusterId: 1}}},
		{"a key without revisions", "list", ranges(&mvccpb.KeyValue{Key: key("subnets/a").Key})},
		{"a key changed before it came",
			"list", ranges(changed(key("subnets/a"), func(kv *mvccpb.KeyValue) { kv.CreateRevision = 8 }))},
		{"a key of the future", "list", ranges(changed(key("subnets/a"), func(kv *mvccpb.KeyValue) { kv.ModRevision = 10 }))},
		{"a key of others", "list", ranges(changed(key("subnets/a"), func(kv *mvccpb.KeyValue) { kv.Key = []byte("/x") }))},
		{"a key twice", "list", ranges(key("subnets/a"), key("subnets/a"))},
		{"keys backwards", "list", ranges(key("subnets/b"), key("subnets/a"))},
		{"nothing", "create", &pb.TxnResponse{}},
		{"success without answers", "create", &pb.TxnResponse{Header: head(9), Succeeded: true}},
		{"failure without answers", "create", &pb.TxnResponse{Header: head(9)}},
		{"an empty answer", "update", &pb.TxnResponse{Header: head(9), Responses: []*pb.ResponseOp{{}}}},
		{"the answer to a read for a write",
			"create", &pb.TxnResponse{Header: head(9), Succeeded: true, Responses: []*pb.ResponseOp{got}}},
		{"the answer to a write for a read", "delete", &pb.TxnResponse{Header: head(9), Responses: []*pb.ResponseOp{put}}},
		{"a write without the keys beside it",
			"create pair", &pb.TxnResponse{Header: head(9), Succeeded: true, Responses: []*pb.ResponseOp{put}}},
		{"a lease without a number", "grant", &pb.LeaseGrantResponse{Header: head(9), TTL: 60}},
		{"a lease without time", "grant", &pb.LeaseGrantResponse{Header: head(9), ID: 3}},
		{"the renewal of nothing", "renew", &pb.LeaseKeepAliveResponse{}},
		{"the renewal of another lease", "renew", &pb.LeaseKeepAliveResponse{ID: 4, TTL: 60}},
		{"an event of nothing", "watch", event(&mvccpb.Event{})},
		{"an event without a revision", "watch", event(&mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte("x")}})},
		{"an event of no kind", "watch", event(&mvccpb.Event{Type: 7, Kv: key("subnets/a")})},
	}
	l := newLiar(t)
	s := newStore(t, etcdv3.Options{Endpoints: []string{"http://" + l.addr}})
	for _, tt := range tests {
		t.Run(tt.call+"/"+tt.name, func(t *testing.T) {
			err := l.ask(t.Context(), s, encode(t, tt.answer))[tt.call]
			if err == nil || !strings.Contains(err.Error(), "invalid answer") {
				t.Errorf("got %v, want an error that says that the answer is invalid", err)
			}
		})
	}
	l.ask(t.Context(), s, encode(t,
		event(&mvccpb.Event{Kv: changed(key("subnets/a"), func(kv *mvccpb.KeyValue) { kv.ModRevision = 6 })})))
	err := s.Watch(t.Context(), subnet.Position{Cluster: 1, Revision: 6}, 0, func([]subnet.Event) {})
	if !errors.Is(err, subnet.ErrHistory) {
		t.Errorf("an old event: got %v, want ErrHistory", err)
	}
}

func TestALongErrorOfEtcdIsNotRepeated(t *testing.T) {
	t.Parallel()
	for _, size := range []int{2_000, 10_000, 100_000, 2_000_000} {
		l := newLiar(t)
		fail := status.Error(codes.Internal, strings.Repeat("x", size))
		l.fail.Store(&fail)
		s := newStore(t, etcdv3.Options{Endpoints: []string{"http://" + l.addr}})
		for call, err := range l.ask(t.Context(), s, nil) {
			if err == nil || len(err.Error()) > 500 {
				t.Errorf("an error of %d bytes: %s returns one of %d", size, call, len(fmt.Sprint(err)))
			}
		}
	}
}

// FuzzAnswers has a server answer all calls with arbitrary bytes: whatever it says, no call panics or hangs.
func FuzzAnswers(f *testing.F) {
	kv := &mvccpb.KeyValue{Key: []byte(prefix + "/subnets/10.5.34.0-24"), CreateRevision: 5, ModRevision: 7, Lease: 3,
		Value: []byte(`{"PublicIP":"192.0.2.1"}`)}
	read := &pb.RangeResponse{Header: head(9), Kvs: []*mvccpb.KeyValue{kv}, More: true, Count: 1}
	for _, m := range []proto.Message{
		read,
		&pb.TxnResponse{Header: head(9),
			Responses: []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponseRange{ResponseRange: read}}}},
		&pb.TxnResponse{Header: head(9), Succeeded: true,
			Responses: []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}}}},
		&pb.WatchResponse{Header: head(9), Created: true},
		&pb.WatchResponse{Header: head(9), Events: []*mvccpb.Event{{Kv: kv}, {Type: mvccpb.Event_DELETE, Kv: kv}}},
		&pb.WatchResponse{Header: head(9), Canceled: true, CompactRevision: 8, CancelReason: "x"},
		&pb.LeaseGrantResponse{Header: head(9), ID: 3, TTL: 60}, &pb.LeaseKeepAliveResponse{Header: head(9), ID: 3, TTL: 60},
	} {
		f.Add(encode(f, m))
	}
	l := newLiar(f)
	f.Fuzz(func(t *testing.T, answer []byte) {
		s := newStore(t, etcdv3.Options{Endpoints: []string{"http://" + l.addr}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l.ask(ctx, s, answer)
		if ctx.Err() != nil {
			t.Error("a call hangs")
		}
	})
}
