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
	pageShrink = 8    // how many times fewer are asked for if those were too large or took too long
)

// pages says how many keys to ask for. An answer above pageBytes is refused before it is read, so that the next
// question, for fewer keys, costs nothing but its time.
type pages struct {
	size int // of the next page
	most int // after an answer that did not come in time, until all was listed
}

// pages returns what the last list has learned.
func (s *Store) pages() *pages {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mostPage == 0 {
		s.mostPage = pageSize
	}
	return &pages{size: s.mostPage, most: s.mostPage}
}

// shrink bounds the pages of the next list, once more time has not helped: etcd looks at all keys for each page.
func (s *Store) shrink(p *pages) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit >= maxPatience*s.wait {
		s.mostPage = max(1, p.size/pageShrink)
	}
}

// listed notes that all was listed: the next list may ask for more at once, and a watch from there has a
// witness: the present one if it stands, else the newest.
func (s *Store) listed(newest, present witness, p *pages) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mostPage = min(pageSize, p.most*pageShrink)
	if s.witness = newest; present.key != "" {
		s.witness = present
	}
}

// page reads the next keys. A key whose value is too large comes without it.
func (s *Store) page(ctx context.Context, from, end string, revision int64, p *pages) (*clientv3.GetResponse, error) {
	for {
		resp, err := s.read(ctx, from, clientv3.WithRange(end), clientv3.WithRev(revision), clientv3.WithLimit(int64(p.size)))
		switch {
		case err == nil:
			p.size = min(2*p.size, p.most)
			return resp, nil
		case errors.Is(err, errNoAnswer):
			s.shrink(p)
			return nil, err
		case !isTooLarge(err):
			return nil, err
		case p.size == 1:
			return s.keyAlone(ctx, from, end, revision)
		}
		p.size = max(1, p.size/pageShrink)
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
