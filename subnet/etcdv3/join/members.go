package join

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Peer is a member of the store, as the store knows it.
type Peer struct {
	ID      uint64
	User    string // of its host, and the name of the member; empty: it has not started yet
	Host    string // the name of the host
	URL     string // for clients; empty: it has not started yet
	PeerURL string
	Service string // HOST:PORT where it lets hosts in; empty: not known
	Learner bool   // it gets all changes, and has no vote yet

	// Filled in by Health only.
	Healthy bool
	Leader  bool
	applied uint64
}

// maxMembers is how many members a store may have, with learners.
const maxMembers = 5

// Errors of members.
var (
	ErrNotMember = errors.New("the token is not one for members: make one with \"flannelctl token create --member\" on " +
		"a member of the store")
	ErrFull    = fmt.Errorf("the store has %d members, which is the most: join it without -etcd-embedded", maxMembers)
	ErrAddress = errors.New("another member of the store has this address: remove it with \"flannelctl members remove\" " +
		"on a member of the store")
	// ErrQuorum says that a removal would stop the store.
	ErrQuorum = errors.New("without this member the store would have no majority of healthy members, and nothing could " +
		"be changed any more: repair the others first")
)

// SetEndpoints has the calls that follow go to other members.
func (a *Admin) SetEndpoints(endpoints []string) { a.client.SetEndpoints(endpoints...) }

// UseVoters has the calls that follow go to those of the endpoints that answer, are no learners and know a leader. It
// reports whether there are any.
func (a *Admin) UseVoters(ctx context.Context, endpoints []string) bool {
	var voters []string
	for e, s := range a.statuses(ctx, endpoints) {
		if !s.IsLearner && s.Leader != 0 {
			voters = append(voters, e)
		}
	}
	if len(voters) > 0 {
		slices.Sort(voters)
		a.client.SetEndpoints(voters...)
	}
	return len(voters) > 0
}

// Revisions asks members one by one for the revision of their data. Those that do not answer are left out.
func (a *Admin) Revisions(ctx context.Context, endpoints []string) map[string]int64 {
	out := map[string]int64{}
	for e, s := range a.statuses(ctx, endpoints) {
		out[e] = s.Header.Revision
	}
	return out
}

// statuses asks all endpoints at once what each says of itself. Those that do not answer are left out.
func (a *Admin) statuses(ctx context.Context, endpoints []string) map[string]*clientv3.StatusResponse {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	out := map[string]*clientv3.StatusResponse{}
	var mu sync.Mutex // guards it
	var asked sync.WaitGroup
	for _, e := range endpoints {
		asked.Go(func() {
			if s, err := a.client.Status(ctx, e); err == nil {
				mu.Lock()
				defer mu.Unlock()
				out[e] = s
			}
		})
	}
	asked.Wait()
	return out
}

// Peers returns the members, in the order of their IDs.
func (a *Admin) Peers(ctx context.Context) ([]Peer, error) {
	hosts, err := a.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	resp, err := a.client.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("list members: %w", err)
	}
	out := make([]Peer, len(resp.Members))
	for i, m := range resp.Members {
		out[i] = peerOf(m)
		for _, h := range hosts {
			if h.User == m.Name && h.Member {
				out[i].Host, out[i].Service = h.Name, h.Service
			}
		}
	}
	return out, nil
}

func peerOf(m *etcdserverpb.Member) Peer {
	p := Peer{ID: m.ID, User: m.Name, Learner: m.IsLearner}
	if len(m.ClientURLs) > 0 {
		p.URL = m.ClientURLs[0]
	}
	if len(m.PeerURLs) > 0 {
		p.PeerURL = m.PeerURLs[0]
	}
	return p
}

// Voters returns those that are no learners.
func Voters(peers []Peer) []Peer {
	return slices.DeleteFunc(slices.Clone(peers), func(p Peer) bool { return p.Learner })
}

// Health returns the members with what each says of itself.
func (a *Admin) Health(ctx context.Context) ([]Peer, error) {
	peers, err := a.Peers(ctx)
	if err == nil {
		a.askHealth(ctx, peers)
	}
	return peers, err
}

// askHealth asks each of the members.
func (a *Admin) askHealth(ctx context.Context, peers []Peer) {
	var urls []string
	for _, p := range peers {
		if p.URL != "" {
			urls = append(urls, p.URL)
		}
	}
	statuses := a.statuses(ctx, urls)
	for i := range peers {
		p := &peers[i]
		if s := statuses[p.URL]; s != nil {
			p.Healthy, p.Leader, p.applied = len(s.Errors) == 0 && s.Leader != 0, s.Leader == p.ID, s.RaftAppliedIndex
		}
	}
}

// Update has the other members reach a member at another address.
func (a *Admin) Update(ctx context.Context, id uint64, peerURL string) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err := a.client.MemberUpdate(ctx, id, []string{peerURL})
	return err
}

// AddPeer adds the member of a host as a learner, and returns what etcd calls the initial cluster. A member of this
// host that was added before has lost its data and is removed; etcd refuses that while there is no quorum without it.
func (a *Admin) AddPeer(ctx context.Context, user, peerURL string) (cluster string, err error) {
	peers, err := a.Peers(ctx)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*callTime)
	defer cancel()
	others, added := peers[:0:0], false
	for _, p := range peers {
		switch {
		case p.User == user:
			if _, err := a.client.MemberRemove(ctx, p.ID); err != nil {
				return "", fmt.Errorf("remove the member that has lost its data: %w", err)
			}
		case p.PeerURL == peerURL && p.User != "":
			return "", ErrAddress
		default:
			added = added || p.PeerURL == peerURL
			others = append(others, p)
		}
	}
	if len(others) >= maxMembers && !added {
		return "", ErrFull
	}
	if !added {
		resp, err := a.client.MemberAddAsLearner(ctx, []string{peerURL})
		if err != nil {
			return "", fmt.Errorf("add member: %w", err)
		}
		others = others[:0]
		for _, m := range resp.Members {
			others = append(others, peerOf(m))
		}
	}
	return initialCluster(others, user, peerURL), nil
}

// initialCluster names the members as etcd wants it. Only the name of the new member matters.
func initialCluster(peers []Peer, user, peerURL string) string {
	var out []string
	for _, p := range peers {
		name := p.User
		if p.PeerURL == peerURL {
			name = user
		} else if name == "" {
			name = fmt.Sprintf("member-%x", p.ID)
		}
		out = append(out, name+"="+p.PeerURL)
	}
	return strings.Join(out, ",")
}

// Promote has those of the members vote that are learners and have all changes, if the member of this user leads the
// others. They are promoted in pairs, from one voter to three to five: of two voters both are needed, of three any two.
func (a *Admin) Promote(ctx context.Context, own string, peers []Peer) (promoted []Peer, err error) {
	if len(Voters(peers)) == len(peers) {
		return nil, nil
	}
	a.askHealth(ctx, peers)
	i := slices.IndexFunc(peers, func(p Peer) bool { return p.User == own && p.Leader })
	if i < 0 {
		return nil, nil
	}
	applied := peers[i].applied
	ready := slices.DeleteFunc(slices.Clone(peers), func(p Peer) bool {
		return !p.Learner || !p.Healthy || p.applied < applied-applied/100
	})
	n := 1 + len(Voters(peers))%2 // an even number is that of a pair whose other member is missing
	if len(ready) < n {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*callTime)
	defer cancel()
	// Only the leader can promote. Another member would pass the call on, without the credentials that the leader wants,
	// and again and again (promoteMemberHTTP in etcd's server).
	leader, err := a.at(peers[i].URL)
	if err != nil {
		return nil, err
	}
	defer func() { _ = leader.Close() }()
	for _, p := range ready[:n] {
		if _, err := leader.MemberPromote(ctx, p.ID); err != nil {
			return promoted, fmt.Errorf("promote member %s: %w", p.Host, err)
		}
		promoted = append(promoted, p)
	}
	return promoted, nil
}

// RemovePeer removes a member, and shuts its host out, unless that would stop the store.
func (a *Admin) RemovePeer(ctx context.Context, id uint64) error {
	peers, err := a.Health(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(peers, func(p Peer) bool { return p.ID == id })
	if i < 0 {
		return errors.New("it is no member any more")
	}
	rest := Voters(slices.Delete(slices.Clone(peers), i, i+1))
	var healthy []string
	for _, p := range rest {
		if p.Healthy {
			healthy = append(healthy, p.URL)
		}
	}
	if !peers[i].Learner && len(healthy) < len(rest)/2+1 {
		return ErrQuorum
	}
	host, found, err := a.Host(ctx, peers[i].User)
	if err != nil {
		return err
	}
	a.client.SetEndpoints(healthy...) // the member itself ends, and takes with it the answers to what it is asked
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if _, err := a.client.MemberRemove(call, id); err != nil && a.isMember(ctx, id) {
		return fmt.Errorf("remove member: %w: try again when all members have been healthy for some seconds", err)
	}
	if !found {
		return nil
	}
	return a.RemoveHost(ctx, host)
}

// isMember reports whether a member is still there, as far as can be known.
func (a *Admin) isMember(ctx context.Context, id uint64) bool {
	peers, err := a.Peers(ctx)
	return err != nil || slices.ContainsFunc(peers, func(p Peer) bool { return p.ID == id })
}
