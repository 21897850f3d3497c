package embedded_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"flanneld/need"
	"flanneld/subnet/etcdv3/authority"
	"flanneld/subnet/etcdv3/embedded"
	"flanneld/subnet/etcdv3/join"
	"flanneld/subnet/etcdv3/member"
)

// nobody is a store that nobody uses.
type nobody struct{}

func (nobody) Move([]string)                             {}
func (nobody) Redial()                                   {}
func (nobody) Members(context.Context) ([]string, error) { return nil, nil }

// joinerWith returns a host that joins with a new token of these terms.
func (f *first) joinerWith(name string, terms join.Terms) embedded.Joiner {
	f.t.Helper()
	c, err := f.CreateToken(f.t.Context(), terms)
	if err != nil {
		f.t.Fatal(err)
	}
	return embedded.Joiner{
		Client: join.Client{
			Folder: embedded.Folder(f.t.TempDir()), Prefix: prefix, Host: name, Identity: "id-" + name,
		},
		Token: c.Token, Services: c.Services, Log: slog.New(slog.DiscardHandler),
	}
}

// another starts one more member, which joins with a token for members.
func (f *first) another(name string) *first {
	f.t.Helper()
	other := f.joining(name)
	other.start()
	return other
}

// joining returns a host that is to be a member: it has joined, and does not run yet.
func (f *first) joining(name string) *first {
	f.t.Helper()
	if testing.Short() {
		f.t.Skip("several members take most of a minute")
	}
	other := newHost(f.t, name)
	dir := other.o.StateDir
	j := f.joinerWith(name, join.Terms{Valid: time.Hour, Member: true})
	j.Client.Folder, j.Client.Member = embedded.Folder(dir), true
	if err := embedded.MayJoin(dir, j.Token.CA); err != nil {
		f.t.Fatal(err)
	}
	j.Join(f.t.Context(), never(f.t))
	return other
}

// members waits for so many healthy voters and learners.
func (f *first) members(voters, learners int) {
	f.t.Helper()
	var peers []join.Peer
	var err error
	defer func() { f.t.Logf("members: %+v, %v", peers, err) }()
	need.Until(f.t, fmt.Sprintf("%d voters and %d learners", voters, learners), time.Minute, func() bool {
		peers, _, err = f.Members(f.t.Context())
		v, l := 0, 0
		for _, p := range peers {
			switch {
			case p.Healthy && p.Learner:
				l++
			case p.Healthy:
				v++
			}
		}
		return v == voters && l == learners
	})
}

// promotes has a learner promoted on behalf of the leader by a client that is connected to the member that is none.
func (f *first) promotes() {
	f.t.Helper()
	ctx := f.t.Context()
	need.Until(f.t, "a learner to be promoted", time.Minute, func() bool {
		peers, _, err := f.Members(ctx)
		if err != nil || len(peers) < 3 {
			return false
		}
		voters := join.Voters(peers)
		leader := slices.IndexFunc(voters, func(p join.Peer) bool { return p.Leader })
		if leader < 0 || len(voters) == 3 {
			return leader >= 0
		}
		admin, err := join.NewAdmin([]string{voters[1-leader].URL}, embedded.Folder(f.o.StateDir), prefix)
		if err != nil {
			f.t.Fatal(err)
		}
		defer func() { _ = admin.Close() }()
		promoted, err := admin.Promote(ctx, voters[leader].User, peers)
		if errors.Is(err, rpctypes.ErrTimeout) {
			f.t.Fatal(err)
		}
		return len(promoted) > 0
	})
}

func TestThreeMembersGoOnWithoutAnyOfThem(t *testing.T) {
	t.Parallel()
	one := newFirst(t)
	two := one.another("second")
	one.members(1, 1) // two voters would be worse than one
	three := one.another("third")
	one.members(3, 0)
	need.Until(t, "all members to be known to all", time.Minute, func() bool {
		for _, m := range []*first{one, two, three} {
			if j, _ := join.Load(embedded.Folder(m.o.StateDir)); len(j.Endpoints) != 3 || len(j.Services) != 3 {
				return false
			}
		}
		return true
	})

	one.stop()
	fourth := two.joiner("fourth")
	fourth.Join(t.Context(), never(t)) // the first service that it asks may be that of the member that is down
	for what, folder := range map[string]authority.Folder{
		"a host that has joined": fourth.Client.Folder, "a member": embedded.Folder(three.o.StateDir),
	} {
		if err := two.store(folder).MayWrite(t.Context()); err != nil {
			t.Errorf("%s, while the first member is down: %v", what, err)
		}
	}
	if _, err := two.RemoveMember(t.Context(), "third"); !errors.Is(err, join.ErrQuorum) {
		t.Errorf("a removal that stops the store: %v", err)
	}
	one.start()
	one.members(3, 0)

	three.stop()
	if err := os.RemoveAll(embedded.DataDir(three.o.StateDir)); err != nil {
		t.Fatal(err)
	}
	three.start() // it is removed and added anew
	one.promotes()
	one.members(3, 0)

	if _, err := three.RemoveMember(t.Context(), "third"); err == nil {
		t.Error("a member has removed itself")
	}
	need.Until(t, "a removal", time.Minute, func() bool { // etcd wants all to be connected for some seconds
		_, err := one.RemoveMember(t.Context(), "second")
		return err == nil
	})
	need.Until(t, "a member to say that it was removed", time.Minute, func() bool {
		err := two.reason()
		return err != nil && strings.Contains(err.Error(), "this host was removed from the members of the store")
	})
	one.members(2, 0)
	if err := one.store(embedded.Folder(two.o.StateDir)).MayWrite(t.Context()); err == nil {
		t.Error("the host of a member that was removed may write")
	}
}

// TestMembersMoveAndGrow has a member move to another address, and adds two more, of which one has a wrong clock: its
// certificates are valid from one hour ago on, as if they were made 23 hours later.
func TestMembersMoveAndGrow(t *testing.T) {
	t.Parallel()
	one := newFirst(t)
	two, three := one.another("second"), one.another("third")
	one.members(3, 0)
	leases(t, one.root())
	two.stop()
	two.o.Listen, two.o.Port = need.Address(t), need.Address(t).Port()
	two.start()
	one.members(3, 0)

	four, five := one.joining("fourth"), one.joining("fifth")
	ahead := authority.Subject{Name: member.CommonName, Server: true, Names: []string{"localhost"},
		Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}}
	folder := embedded.Folder(five.o.StateDir)
	ca, err := authority.Open(folder, time.Now())
	if err == nil {
		err = ca.Ensure(folder, authority.Member, ahead, time.Now().Add(23*time.Hour))
	}
	if err != nil {
		t.Fatal(err)
	}
	four.start()
	five.start()
	one.members(5, 0)
	if cert, err := folder.Certificate(authority.Member); err != nil || time.Since(cert.NotBefore) > 2*time.Hour {
		t.Errorf("the member with a wrong clock has made its certificate anew: %v, %v", cert.NotBefore, err)
	}
	one.stop()
	three.stop()
	two.members(3, 0)
	if got := held(t, five.root()); len(got) != 20 {
		t.Errorf("three of five members have the records %v", got)
	}
}

func TestAMemberNeedsATokenForMembers(t *testing.T) {
	t.Parallel()
	f := newFirst(t)
	j := f.joiner("second")
	j.Client.Member = true
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reason error
	j.Join(ctx, func(err error) { reason = err; cancel() })
	if !errors.Is(reason, join.ErrNotMember) {
		t.Errorf("joins as a member with a token for hosts: %v", reason)
	}
	if _, err := j.Client.Folder.AuthorityKey(); err == nil {
		t.Error("it has the key of the authority")
	}
	host := f.joiner("third")
	host.Join(t.Context(), never(t))
	_, services, err := servicesOf(host.Client.Folder)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := host.Client.AddMember(t.Context(), services, "https://127.0.0.1:1"); !errors.Is(err, join.ErrNotMember) {
		t.Errorf("a host that is no member adds itself to the members: %v", err)
	}
}

// TestAHostIsNoPeer: of the certificates of the authority, those of members alone count at the port for members.
func TestAHostIsNoPeer(t *testing.T) {
	t.Parallel()
	f := newFirst(t)
	host := f.joiner("second")
	host.Join(t.Context(), never(t))
	peer := netip.AddrPortFrom(f.o.Listen.Addr(), f.o.Listen.Port()+1).String()
	for _, test := range []struct {
		folder authority.Folder
		name   string
		want   bool
	}{
		{embedded.Folder(f.o.StateDir), authority.Member, true}, {host.Client.Folder, authority.Host, false},
		{embedded.Folder(f.o.StateDir), authority.Root, false},
	} {
		pair, err := tls.LoadX509KeyPair(test.folder.CertFile(test.name), test.folder.KeyFile(test.name))
		if err != nil {
			t.Fatal(err)
		}
		ca, err := test.folder.CACertificate()
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
			RootCAs: roots, Certificates: []tls.Certificate{pair},
		}}}
		resp, err := client.Get("https://" + peer + "/members")
		if err == nil {
			_ = resp.Body.Close()
		}
		if got := err == nil && resp.StatusCode == http.StatusOK; got != test.want {
			t.Errorf("with the certificate of %s: let in is %v (%v), want %v", test.name, got, err, test.want)
		}
	}
}

func servicesOf(f authority.Folder) (endpoints, services []string, err error) {
	j, ok := join.Load(f)
	if !ok {
		err = fmt.Errorf("nothing in %s", f)
	}
	return j.Endpoints, j.Services, err
}

func TestAHostWithAStoreOfItsOwnJoinsNoOther(t *testing.T) {
	t.Parallel()
	f := newFirst(t)
	own, err := embedded.Folder(f.o.StateDir).CACertificate()
	if err != nil {
		t.Fatal(err)
	}
	if err := embedded.MayJoin(f.o.StateDir, authority.Hash(own)); err != nil {
		t.Errorf("a member that is restarted with its flags: %v", err)
	}
	if err := embedded.MayJoin(f.o.StateDir, [32]byte{}); err == nil {
		t.Error("it may join the store of another authority")
	}
	insecure := t.TempDir()
	if err := embedded.MarkInsecure(insecure); err != nil {
		t.Fatal(err)
	}
	if err := embedded.MayJoin(insecure, [32]byte{}); err == nil {
		t.Error("a host with an insecure store may join another")
	}
}
