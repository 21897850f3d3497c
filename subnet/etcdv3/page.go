package etcdv3

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	pageSize   = 1000 // keys listed with one request, at most
	pageShrink = 8    // how many times fewer are asked for if those were too large
)

// page reads the next keys, size at most, which it adapts for the page after it. A key whose value is too large comes
// without it. An answer above pageBytes is refused before it is read, so that asking again for fewer keys costs only
// time. A late answer is no reason to ask for fewer: etcd looks at all keys for each page.
func (s *Store) page(ctx context.Context, from, end string, revision int64, size *int64) (*clientv3.GetResponse,
	error) {
	for {
		resp, err := s.read(ctx, from, clientv3.WithRange(end), clientv3.WithRev(revision), clientv3.WithLimit(*size))
		switch {
		case err == nil:
			*size = min(2**size, pageSize)
			return resp, nil
		case !isTooLarge(err):
			return nil, err
		case *size == 1:
			return s.keyAlone(ctx, from, end, revision)
		}
		*size = max(1, *size/pageShrink)
	}
}

// keyAlone reads the next key without its value.
func (s *Store) keyAlone(ctx context.Context, from, end string, revision int64) (*clientv3.GetResponse, error) {
	resp, err := s.read(ctx, from, clientv3.WithRange(end), clientv3.WithRev(revision), clientv3.WithLimit(1),
		clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	for _, kv := range resp.Kvs {
		kv.Value = oversized
	}
	return resp, nil
}

// oversized stands for a value that was not read. It is no JSON.
var oversized = []byte("a value that is too large to be read")

func (s *Store) read(ctx context.Context, key string, opts ...clientv3.OpOption) (resp *clientv3.GetResponse,
	err error) {
	err = s.call(ctx, "list records", func(ctx context.Context, c *clientv3.Client) error {
		resp, err = c.Get(ctx, key, opts...)
		return err
	})
	return resp, err
}

// isTooLarge reports whether an answer was refused because of its size. etcd's own errors of that code are others: no
// space left, too many requests.
func isTooLarge(err error) bool {
	var own rpctypes.EtcdError
	return status.Code(err) == codes.ResourceExhausted && !errors.As(err, &own)
}
