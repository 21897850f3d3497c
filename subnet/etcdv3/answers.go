package etcdv3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"flanneld/subnet"
)

// errNonsense is the error of a call whose answer breaks what the API promises.
var errNonsense = errors.New("invalid answer")

// How large an answer may be, in bytes. A larger one fails before it is read into memory.
const (
	pageBytes  = 1 << 20  // a page of the list: a thousand records have 350 kB
	largeBytes = 16 << 20 // others: the keys of 200,000 records, ten thousand records that change at once
)

// unary is around every call but the streams. A call that finds no connection fails with the reason: by itself clientv3
// waits for one, silently, and sends the request to whatever store stands there by then. The answer is bounded and
// checked, so that nobody behind it has to expect one that is incomplete.
func unary(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption,
) error {
	most := largeBytes
	if r, ok := req.(*pb.RangeRequest); ok && !(r.KeysOnly && r.Limit == 1) {
		most = pageBytes
	}
	opts = append(slices.Clip(opts), grpc.WaitForReady(false), grpc.MaxCallRecvMsgSize(most))
	if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
		return brief(err)
	}
	return checkAnswer(req, reply)
}

// brief shortens what a server says of an error. The status that it had is kept.
func brief(err error) error {
	if st, ok := status.FromError(err); ok && len(st.Message()) > maxReason {
		return status.Error(st.Code(), subnet.Brief(st.Message(), maxReason))
	}
	return err
}

// streamed is around every stream: see unary.
func streamed(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer,
	opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	opts = append(slices.Clip(opts), grpc.WaitForReady(false), grpc.MaxCallRecvMsgSize(largeBytes))
	stream, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, err
	}
	return checkedStream{stream}, nil
}

type checkedStream struct{ grpc.ClientStream }

// RecvMsg implements grpc.ClientStream.
func (s checkedStream) RecvMsg(reply any) error {
	if err := s.ClientStream.RecvMsg(reply); err != nil {
		return brief(err)
	}
	return checkAnswer(nil, reply)
}

// checkAnswer holds an answer of etcd against what the API promises. req is nil for the answers of streams.
func checkAnswer(req, reply any) error {
	switch r := reply.(type) {
	case *pb.RangeResponse:
		q, _ := req.(*pb.RangeRequest)
		return checkRange(q, r, r.GetHeader().GetRevision())
	case *pb.TxnResponse:
		q, _ := req.(*pb.TxnRequest)
		return checkTxn(q, r)
	case *pb.LeaseGrantResponse:
		if r.ID == 0 || r.TTL <= 0 {
			return fmt.Errorf("%w: lease %d with a time to live of %d s", errNonsense, r.ID, r.TTL)
		}
	case *pb.LeaseKeepAliveResponse:
		if r.ID == 0 {
			return fmt.Errorf("%w: renewal of no lease", errNonsense)
		}
	case *pb.WatchResponse:
		return checkEvents(r.Events)
	}
	return nil
}

// checkRange checks what was read at a revision.
func checkRange(q *pb.RangeRequest, r *pb.RangeResponse, revision int64) error {
	switch {
	case revision <= 0:
		return fmt.Errorf("%w: no revision", errNonsense)
	case q.GetLimit() > 0 && int64(len(r.Kvs)) > q.GetLimit():
		return fmt.Errorf("%w: %d keys, asked for %d", errNonsense, len(r.Kvs), q.GetLimit())
	}
	var last []byte
	for i, kv := range r.Kvs {
		if err := checkKey(kv); err != nil {
			return err
		}
		switch {
		case kv.ModRevision > revision:
			return fmt.Errorf("%w: a key that was changed at revision %d, read at revision %d", errNonsense, kv.ModRevision,
				revision)
		case !inRange(kv.Key, q.GetKey(), q.GetRangeEnd()):
			return fmt.Errorf("%w: a key that was not asked for: %.100q", errNonsense, kv.Key)
		case i > 0 && bytes.Compare(last, kv.Key) >= 0:
			return fmt.Errorf("%w: keys out of order", errNonsense)
		}
		last = kv.Key
	}
	return nil
}

// inRange reports whether a key is the given one, or from it on and before the end if there is one.
func inRange(key, from, end []byte) bool {
	if len(end) == 0 {
		return bytes.Equal(key, from)
	}
	return bytes.Compare(key, from) >= 0 && (bytes.Equal(end, []byte{0}) || bytes.Compare(key, end) < 0)
}

// checkKey checks a key that stands in the store.
func checkKey(kv *mvccpb.KeyValue) error {
	if kv == nil || kv.CreateRevision <= 0 || kv.ModRevision < kv.CreateRevision {
		return fmt.Errorf("%w: a key created at revision %d and changed at %d", errNonsense, kv.GetCreateRevision(),
			kv.GetModRevision())
	}
	return nil
}

// checkTxn checks that each operation of the branch that was taken has its answer.
func checkTxn(q *pb.TxnRequest, r *pb.TxnResponse) error {
	revision := r.GetHeader().GetRevision()
	ops := q.GetFailure()
	if r.Succeeded {
		ops = q.GetSuccess()
	}
	switch {
	case revision <= 0:
		return fmt.Errorf("%w: no revision", errNonsense)
	case len(r.Responses) != len(ops):
		return fmt.Errorf("%w: %d answers to %d operations", errNonsense, len(r.Responses), len(ops))
	}
	for i, op := range ops {
		if err := checkOp(op, r.Responses[i], revision); err != nil {
			return fmt.Errorf("operation %d: %w", i, err)
		}
	}
	return nil
}

// checkOp checks the answer to one operation of a transaction.
func checkOp(op *pb.RequestOp, a *pb.ResponseOp, revision int64) error {
	answered := true
	switch o := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		if read := a.GetResponseRange(); read != nil {
			return checkRange(o.RequestRange, read, revision)
		}
		answered = false
	case *pb.RequestOp_RequestPut:
		answered = a.GetResponsePut() != nil
	case *pb.RequestOp_RequestDeleteRange:
		answered = a.GetResponseDeleteRange() != nil
	}
	if !answered {
		return fmt.Errorf("%w: it is of another kind of operation", errNonsense)
	}
	return nil
}

// checkEvents checks what a watch has sent. Of a deleted key only the name and the revision are told.
func checkEvents(events []*mvccpb.Event) error {
	for _, ev := range events {
		kv := ev.GetKv()
		switch {
		case kv == nil || kv.ModRevision <= 0 || len(kv.Key) == 0:
			return fmt.Errorf("%w: an event without a key or a revision", errNonsense)
		case ev.Type == mvccpb.Event_PUT:
			if err := checkKey(kv); err != nil {
				return err
			}
		case ev.Type != mvccpb.Event_DELETE:
			return fmt.Errorf("%w: an event of type %d", errNonsense, ev.Type)
		}
	}
	return nil
}
