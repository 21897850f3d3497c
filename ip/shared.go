package ip

import "sync"

// Shared has the hosts of one process, which a simulation of a large cluster is, keep equal objects once. Any goroutine
// may use it. A nil one has each host keep its own.
type Shared struct {
	links  pool[Link]
	addrs  pool[Addr]
	fdb    pool[FDB]
	neighs pool[Neigh]
	routes pool[Route]
}

// pool has one pointer for each value that was asked for.
type pool[T comparable] struct {
	mu  sync.RWMutex
	all map[T]*T
}

// pointer returns a pointer to a value that nobody changes.
func (p *pool[T]) pointer(v T) *T {
	if p == nil {
		return &v
	}
	p.mu.RLock()
	found := p.all[v]
	p.mu.RUnlock()
	if found != nil {
		return found
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if found = p.all[v]; found == nil {
		if p.all == nil {
			p.all = map[T]*T{}
		}
		found = &v
		p.all[v] = found
	}
	return found
}
