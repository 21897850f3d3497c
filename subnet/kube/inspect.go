package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Right is one thing that the daemon does with the API, and whether it may.
type Right struct {
	Verb, Resource string
	Allowed        bool
	Reason         string // of the API server; often empty
}

// Inspection is what the API server says about this daemon's own node and rights, for a diagnosis.
type Inspection struct {
	Node     string   // name of the own Node object
	NodeErr  error    // why it was not read
	PodCIDRs []string // as written
	Rights   []Right
	RightErr error // why they are not known
}

// rights are what the ClusterRole of the manifest grants. That to pods is needed only where $NODE_NAME is not set.
var rights = []Right{
	{Verb: "get", Resource: "nodes"}, {Verb: "list", Resource: "nodes"}, {Verb: "watch", Resource: "nodes"},
	{Verb: "patch", Resource: "nodes/status"},
}

// Inspect asks about the node and each right: six requests at most. It needs no right of its own: every authenticated
// user may ask what it may.
func (c *Client) Inspect(ctx context.Context, o OwnOptions) Inspection {
	out := Inspection{Node: o.Node}
	wanted := slices.Clone(rights)
	if o.Node == "" {
		wanted = append(wanted, Right{Verb: "get", Resource: "pods"})
		if out.Node, out.NodeErr = c.podNode(ctx, o.Namespace, o.Pod); out.NodeErr != nil {
			out.Node = o.Last
		}
	}
	if out.Node != "" {
		object, err := c.getNode(ctx, out.Node)
		if out.NodeErr = err; err == nil {
			out.PodCIDRs = o.Names.nodeOf(object).podCIDRs
		}
	}
	for _, r := range wanted {
		var err error
		if r.Allowed, r.Reason, err = c.mayI(ctx, r, o.Namespace); err != nil {
			out.RightErr = err
			break
		}
		out.Rights = append(out.Rights, r)
	}
	return out
}

// review is a SelfSubjectAccessReview, as far as it is used.
type review struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		Attributes attributes `json:"resourceAttributes"`
	} `json:"spec"`
	Status struct {
		Allowed bool   `json:"allowed"`
		Reason  string `json:"reason"`
	} `json:"status"`
}

type attributes struct {
	Namespace   string `json:"namespace,omitempty"`
	Verb        string `json:"verb"`
	Resource    string `json:"resource"`
	Subresource string `json:"subresource,omitempty"`
}

func (r Right) attributes(namespace string) attributes {
	resource, sub, _ := strings.Cut(r.Resource, "/")
	out := attributes{Verb: r.Verb, Resource: resource, Subresource: sub}
	if resource == "pods" {
		out.Namespace = namespace
	}
	return out
}

// mayI asks the API server whether the daemon's user has a right.
func (c *Client) mayI(ctx context.Context, r Right, namespace string) (allowed bool, reason string, err error) {
	in := review{APIVersion: "authorization.k8s.io/v1", Kind: "SelfSubjectAccessReview"}
	in.Spec.Attributes = r.attributes(namespace)
	body, err := json.Marshal(in)
	if err != nil {
		return false, "", fmt.Errorf("encode review: %w", err)
	}
	text, err := c.rest.Post().AbsPath("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").
		SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").
		Timeout(requestTime).Body(body).Do(ctx).Raw()
	if err != nil {
		return false, "", c.explain("create", "selfsubjectaccessreviews", err)
	}
	var out review
	if err := json.Unmarshal(text, &out); err != nil {
		return false, "", fmt.Errorf("read review: %w", err)
	}
	return out.Status.Allowed, out.Status.Reason, nil
}
