package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"flanneld/subnet"
	"flanneld/trigger"
)

// Own is what the daemon must know of its own node before it can choose an interface.
type Own struct {
	Name string
	// PublicIPs are what the operator has written for this node, like -public-ip and -public-ipv6; the zero value:
	// nothing.
	PublicIPs [2]netip.Addr
	// Published is the record that stands in the annotations, the one of a former run or of another implementation.
	Published subnet.Record
}

// OwnOptions say which node is the own one.
type OwnOptions struct {
	Node           string // $NODE_NAME; empty: that of the pod
	Namespace, Pod string // $POD_NAMESPACE and $POD_NAME
	Last           string // the node of the last run, whose state is usable; empty: there is none
	Names          Names
	Waiting        func(reason error) // is called whenever the reason for waiting changes
}

// resumeWait is how long a host that can serve traffic from its state waits for the API server first.
const resumeWait = time.Second

// WaitOwn returns what is known of the own node as soon as it exists. If the API server does not answer and the last
// run has left a usable state, that is its name alone. Other errors than that of ctx mean that the environment is
// wrong.
func WaitOwn(ctx context.Context, c *Client, o OwnOptions) (Own, error) {
	if o.Node == "" && (o.Pod == "" || o.Namespace == "") {
		return Own{}, errors.New("-kube-subnet-mgr: the name of this node is not known: " +
			"set NODE_NAME, or POD_NAME and POD_NAMESPACE, in the environment")
	}
	backoff, said, start := newBackoff(), "", time.Now()
	for {
		own, err := c.own(ctx, o)
		if err == nil {
			return own, nil
		}
		if ctx.Err() != nil {
			return Own{}, ctx.Err()
		}
		if o.Last != "" && !apierrors.IsNotFound(err) && time.Since(start) >= resumeWait {
			return Own{Name: o.Last}, nil
		}
		if err.Error() != said {
			said = err.Error()
			o.Waiting(err)
		}
		_ = trigger.Pause(ctx, backoff.Step())
	}
}

func (c *Client) own(ctx context.Context, o OwnOptions) (Own, error) {
	if o.Last != "" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, resumeWait)
		defer cancel()
	}
	name := o.Node
	if name == "" {
		var err error
		if name, err = c.podNode(ctx, o.Namespace, o.Pod); err != nil {
			return Own{}, fmt.Errorf("find the node of pod %s/%s: %w", o.Namespace, o.Pod, err)
		}
	}
	object, err := c.getNode(ctx, name)
	if err != nil {
		return Own{}, fmt.Errorf("read node %s: %w", name, err)
	}
	n := o.Names.nodeOf(object)
	out := Own{Name: name}
	for family, annotation := range o.Names.NodePublic {
		text := n.annotations[annotation]
		if text == "" {
			continue
		}
		a, err := netip.ParseAddr(text)
		if err != nil || a.Is4() != (family == 0) {
			return Own{}, fmt.Errorf("node %s: annotation %s is %.80q, want an address of its family", name, annotation, text)
		}
		out.PublicIPs[family] = a
	}
	if r, err := o.Names.published(n); err == nil {
		out.Published = r
	}
	return out, nil
}
