package join

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"flanneld/subnet"
	"flanneld/subnet/etcdv3/authority"
)

// Admin administers a store as its root: users, rights and tokens. What it keeps in etcd lies outside of the prefix of
// the network, where hosts have no rights:
//
//	flanneld/store         which network the store is for
//	flanneld/tokens/ID     a token, without its secret
//	flanneld/hosts/USER    a host that has joined
//
// It may be used by several goroutines.
type Admin struct {
	client *clientv3.Client
	folder authority.Folder
	prefix string // of the network, without a slash at the end
}

const (
	storeKey   = "flanneld/store"
	tokensKey  = "flanneld/tokens/"
	hostsKey   = "flanneld/hosts/"
	rootUser   = "root" // the name is etcd's
	hostRole   = "flannel-host"
	memberRole = "flannel-member" // what members may do beside
	callTime   = 5 * time.Second
)

// NewAdmin returns an administrator of the members at the endpoints, with the credentials in the folder. It does not
// connect.
func NewAdmin(endpoints []string, f authority.Folder, prefix string) (*Admin, error) {
	a := &Admin{folder: f, prefix: prefix}
	var err error
	a.client, err = a.at(endpoints...)
	return a, err
}

// at returns a client with the rights of an administrator.
func (a *Admin) at(endpoints ...string) (*clientv3.Client, error) {
	config, err := clientTLS(a.folder, authority.Root)
	if err != nil {
		return nil, err
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: config, Logger: zap.NewNop(), DialKeepAliveTime: 2 * callTime,
		DialKeepAliveTimeout: callTime, MaxUnaryRetries: 2,
		DialOptions: []grpc.DialOption{grpc.WithDisableRetry(), grpc.WithChainUnaryInterceptor(overtaken())},
	})
	if err != nil {
		return nil, fmt.Errorf("administer the store: %w", err)
	}
	return c, nil
}

// overtaken is around every call: etcd refuses one during which users or roles have changed, and has done nothing then.
func overtaken() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker,
		opts ...grpc.CallOption) error {
		for {
			err := invoke(ctx, method, req, reply, cc, opts...)
			if !errors.Is(rpctypes.Error(err), rpctypes.ErrAuthOldRevision) || ctx.Err() != nil {
				return err
			}
		}
	}
}

// Snapshot returns the whole store as it is now, in the form of etcd's own snapshots. The caller reads it to its end
// before ctx ends, and closes it.
func (a *Admin) Snapshot(ctx context.Context) (io.ReadCloser, error) { return a.client.Snapshot(ctx) }

// Close ends all calls.
func (a *Admin) Close() error { return a.client.Close() }

// Secure turns the rights on: those of root, and those of hosts, which read below the prefix and write records and
// claims. own is the host of this member; known are those that an earlier store of the same authority had let in, and
// are let in again by a store that is new. It may be called at any time, and writes only what is missing.
func (a *Admin) Secure(ctx context.Context, own Host, known []Host) error {
	ctx, cancel := context.WithTimeout(ctx, 4*callTime)
	defer cancel()
	fresh, err := a.fresh(ctx)
	if err != nil {
		return err
	}
	base := a.prefix + "/"
	roles := []role{
		{hostRole, []right{
			{base, authpb.Permission_READ}, {base + subnet.SubnetsFolder, authpb.Permission_READWRITE},
			{base + subnet.ClaimsFolder, authpb.Permission_READWRITE},
		}},
		{memberRole, []right{{base + configName, authpb.Permission_READWRITE}}},
	}
	for _, r := range roles {
		if err := a.ensureRole(ctx, r); err != nil {
			return fmt.Errorf("set up the rights of the store: %w", err)
		}
	}
	if !fresh {
		known = nil
	}
	for _, h := range append(slices.Clone(known), own) {
		have, found, err := a.Host(ctx, h.User)
		switch {
		case err == nil && !found:
			err = a.AddHost(ctx, h)
		case err == nil && h.User == own.User && have.Service != own.Service:
			have.Service = own.Service
			err = a.AddHost(ctx, have)
		}
		if err != nil {
			return err
		}
	}
	if err := a.enable(ctx); err != nil || !fresh {
		return err
	}
	if _, err := a.client.Put(ctx, storeKey, a.prefix); err != nil {
		return fmt.Errorf("write which network the store is for: %w", err)
	}
	return nil
}

// configName is the key of the network configuration.
const configName = "config"

// fresh reports whether the store was not secured before. It is an error if it serves another network.
func (a *Admin) fresh(ctx context.Context) (bool, error) {
	resp, err := a.client.Get(ctx, storeKey)
	switch {
	case err != nil:
		return false, fmt.Errorf("read which network the store is for: %w", err)
	case len(resp.Kvs) == 0:
		return true, nil
	case string(resp.Kvs[0].Value) != a.prefix:
		return false, fmt.Errorf("%w: it is for the prefix %q, this daemon for %q", ErrPrefix, resp.Kvs[0].Value, a.prefix)
	}
	return false, nil
}

// enable makes the rights count.
func (a *Admin) enable(ctx context.Context) error {
	status, err := a.client.AuthStatus(ctx)
	if err == nil && status.Enabled {
		return nil
	}
	if err == nil {
		err = a.ensureUser(ctx, rootUser, rootUser)
	}
	if err == nil {
		_, err = a.client.AuthEnable(ctx)
	}
	if err != nil {
		return fmt.Errorf("turn on the rights of the store: %w", err)
	}
	return nil
}

// role is what some users may do.
type role struct {
	name   string
	rights []right
}

type right struct {
	key  string // one key, or all that begin with it if it ends with a slash
	what authpb.Permission_Type
}

func (r right) end() string {
	if strings.HasSuffix(r.key, "/") {
		return clientv3.GetPrefixRangeEnd(r.key)
	}
	return ""
}

func (r right) in(have []*authpb.Permission) bool {
	return slices.ContainsFunc(have, func(p *authpb.Permission) bool {
		return string(p.Key) == r.key && string(p.RangeEnd) == r.end() && p.PermType == r.what
	})
}

func (a *Admin) ensureRole(ctx context.Context, r role) error {
	all, err := a.client.RoleList(ctx)
	if err == nil && !slices.Contains(all.Roles, r.name) {
		_, err = a.client.RoleAdd(ctx, r.name)
	}
	if err != nil && !errors.Is(err, rpctypes.ErrRoleAlreadyExist) {
		return err
	}
	have, err := a.client.RoleGet(ctx, r.name)
	if err != nil {
		return err
	}
	for _, right := range r.rights {
		if right.in(have.Perm) {
			continue
		}
		if _, err := a.client.RoleGrantPermission(ctx, r.name, right.key, right.end(),
			clientv3.PermissionType(right.what)); err != nil {
			return err
		}
	}
	return nil
}

// ensureUser makes a user without a password, who is known by the name in a certificate. What is there is looked for in
// lists: etcd logs a warning for each request that fails.
func (a *Admin) ensureUser(ctx context.Context, name string, roles ...string) error {
	all, err := a.client.UserList(ctx)
	if err == nil && !slices.Contains(all.Users, name) {
		_, err = a.client.UserAddWithOptions(ctx, name, "", &clientv3.UserAddOptions{NoPassword: true})
	}
	if err != nil && !errors.Is(err, rpctypes.ErrUserAlreadyExist) {
		return err
	}
	have, err := a.client.UserGet(ctx, name)
	if err != nil {
		return err
	}
	for _, r := range roles {
		if slices.Contains(have.Roles, r) {
			continue
		}
		if _, err := a.client.UserGrantRole(ctx, name, r); err != nil {
			return err
		}
	}
	return nil
}
