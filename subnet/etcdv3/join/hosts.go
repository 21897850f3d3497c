package join

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/subnet"
)

// Host is a host that has joined.
type Host struct {
	User     string    `json:"user"`
	Name     string    `json:"name,omitempty"`
	Identity string    `json:"identity,omitempty"` // in its record
	Address  string    `json:"address,omitempty"`  // that it has joined from
	Token    string    `json:"token,omitempty"`    // the ID of what it has joined with
	Joined   time.Time `json:"joined"`
	Member   bool      `json:"member,omitempty"`  // may also write the network configuration
	Service  string    `json:"service,omitempty"` // HOST:PORT where a member lets hosts in
}

// userForm is what the users of hosts begin with. The rest is random: a host that joins again is another user.
const userForm = "host-"

// NewUser returns the name of a user for a host.
func NewUser() string { return userForm + random(10) }

// AddHost lets a host in.
func (a *Admin) AddHost(ctx context.Context, h Host) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	roles := []string{hostRole}
	if h.Member {
		roles = append(roles, memberRole)
	}
	if err := a.ensureUser(ctx, h.User, roles...); err != nil {
		return fmt.Errorf("add host %s: %w", h.User, err)
	}
	text, err := json.Marshal(h)
	if err == nil {
		_, err = a.client.Put(ctx, hostsKey+h.User, string(text))
	}
	if err != nil {
		return fmt.Errorf("add host %s: %w", h.User, err)
	}
	return nil
}

// Hosts returns those that have joined, sorted by user.
func (a *Admin) Hosts(ctx context.Context) ([]Host, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	resp, err := a.client.Get(ctx, hostsKey, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("list hosts: %w", err)
	}
	hosts := make([]Host, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		var h Host
		if json.Unmarshal(kv.Value, &h) == nil && hostsKey+h.User == string(kv.Key) {
			hosts = append(hosts, h)
		}
	}
	return hosts, nil
}

// Host returns one that has joined and was not shut out since.
func (a *Admin) Host(ctx context.Context, user string) (h Host, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	resp, err := a.client.Get(ctx, hostsKey+user)
	if err == nil && len(resp.Kvs) == 1 {
		found, err = true, json.Unmarshal(resp.Kvs[0].Value, &h)
	}
	if err != nil {
		return Host{}, false, fmt.Errorf("look up host %s: %w", user, err)
	}
	return h, found, nil
}

// RemoveHost shuts a host out: its credentials are worth nothing from now on, and its record is deleted, unless it has
// joined anew as another user.
func (a *Admin) RemoveHost(ctx context.Context, h Host) error {
	ctx, cancel := context.WithTimeout(ctx, 2*callTime)
	defer cancel()
	_, err := a.client.UserDelete(ctx, h.User)
	if errors.Is(err, rpctypes.ErrUserNotFound) {
		err = nil
	}
	var hosts []Host
	if err == nil {
		hosts, err = a.Hosts(ctx)
	}
	again := func(o Host) bool { return o.Identity == h.Identity && o.User != h.User }
	if err == nil && !slices.ContainsFunc(hosts, again) {
		err = a.removeRecords(ctx, h.Identity)
	}
	if err == nil { // last: what is left undone is found again by it
		_, err = a.client.Delete(ctx, hostsKey+h.User)
	}
	if err != nil {
		return fmt.Errorf("remove host %s: %w", h.User, err)
	}
	return nil
}

// removeRecords deletes the records that carry an identity, and revokes their leases.
func (a *Admin) removeRecords(ctx context.Context, identity string) error {
	if identity == "" {
		return nil
	}
	resp, err := a.client.Get(ctx, a.prefix+"/"+subnet.SubnetsFolder, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	var errs []error
	for _, kv := range resp.Kvs {
		var record struct{ ID string }
		if json.Unmarshal(kv.Value, &record) != nil || record.ID != identity {
			continue
		}
		_, err := a.client.Delete(ctx, string(kv.Key))
		if err == nil && kv.Lease != 0 {
			_, err = a.client.Revoke(ctx, clientv3.LeaseID(kv.Lease))
		}
		if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
