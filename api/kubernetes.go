package api

// Kubernetes is what the API server says about a daemon's own node and rights, where it is the store.
type Kubernetes struct {
	Node        string   `json:"node"`
	NodeError   string   `json:"node_error,omitempty"` // why the Node object was not read
	PodCIDRs    []string `json:"pod_cidrs"`            // as they stand in the Node object
	Rights      []Right  `json:"rights"`
	RightsError string   `json:"rights_error,omitempty"` // why they are not known
}

// Right is one thing that the daemon does with the API, and whether it may.
type Right struct {
	Verb     string `json:"verb"`
	Resource string `json:"resource"`
	Allowed  bool   `json:"allowed"`
	Reason   string `json:"reason,omitempty"`
}
