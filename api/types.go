package api

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Ready tells whether pods may be started: the data plane has been brought up.
type Ready struct {
	Ready bool `json:"ready"`
	// Reason says why not; it may also be set while ready, when something is not as it should be.
	Reason string `json:"reason"`
	State  string `json:"state"` // one of the states below
}

// The states of a daemon.
const (
	StateReady    = "ready"     // all is well
	StateDegraded = "degraded"  // packets flow, and something is wrong; counts as ready
	StateNotReady = "not ready" // packets do not flow, or pods may not be started yet
)

// Status is what one daemon knows of the network and of itself.
type Status struct {
	Version     string            `json:"version"`
	Build       *Build            `json:"build,omitempty"` // a daemon of an earlier version does not say it
	Host        string            `json:"host,omitempty"`
	Identity    string            `json:"identity,omitempty"`
	Started     time.Time         `json:"started"`
	State       string            `json:"state"`   // StateReady, StateDegraded or StateNotReady
	Reasons     []string          `json:"reasons"` // sentences that say what is wrong; empty when State is StateReady
	Ready       bool              `json:"ready"`
	Reason      string            `json:"reason,omitempty"` // the Reasons as one text
	Drained     bool              `json:"drained,omitempty"`
	Network     []netip.Prefix    `json:"network"`
	Config      json.RawMessage   `json:"config,omitempty"` // the network configuration as it stands in the store
	Backend     string            `json:"backend,omitempty"`
	Devices     []string          `json:"devices"` // of the backend
	MTU         int               `json:"mtu,omitempty"`
	Interface   string            `json:"interface,omitempty"` // of the underlay
	Chosen      string            `json:"interface_reason,omitempty"`
	Addresses   []netip.Addr      `json:"addresses"` // on the underlay
	PublicIPs   []netip.Addr      `json:"public_ips"`
	Subnets     []netip.Prefix    `json:"subnets"`
	Lease       Lease             `json:"lease"`
	Peers       int               `json:"peers"`
	Failing     int               `json:"failing_peers"` // not programmed in the kernel
	Kept        int               `json:"kept_peers"`    // lost by the store, still forwarded to
	Skipped     int               `json:"skipped_records"`
	StoreSince  *time.Time        `json:"store_unreachable_since,omitempty"`
	StoreReason string            `json:"store_error,omitempty"`
	Revision    int64             `json:"store_revision,omitempty"`
	Cluster     string            `json:"store_cluster,omitempty"` // identity of the store, hexadecimal
	Pending     string            `json:"pending,omitempty"`       // waits for a restart
	Drift       map[string]uint64 `json:"drift"`                   // objects changed by others and repaired, by kind
	Datapath    map[string]uint64 `json:"datapath,omitempty"`      // counters of a datapath in user space
	Path        string            `json:"datapath_path,omitempty"` // "kernel", or "user space: " and why
	Silent      []netip.Prefix    `json:"silent_peers,omitempty"`  // they do not answer handshakes of an encrypted tunnel
	Passes      Passes            `json:"passes"`
	Errors      []Event           `json:"errors"` // the last ones, oldest first
	Firewall    *Firewall         `json:"firewall,omitempty"`
	Probes      *ProbeSummary     `json:"probes,omitempty"`
	Daemon      *Daemon           `json:"daemon,omitempty"` // on the socket only
}

// Build is what a program was built from.
type Build struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"` // its hash
	Date    string `json:"date,omitempty"`   // of the commit, as in RFC 3339
	Go      string `json:"go,omitempty"`     // version and platform
}

// Firewall is what the packet filter says.
type Firewall struct {
	StrictIngress bool      `json:"strict_ingress"`         // tunnel packets are accepted from peers only
	Open          string    `json:"open_because,omitempty"` // why not
	Dropped       uint64    `json:"dropped_tunnel_packets"` // of hosts that are no peers, since the start
	NonPeers      []NonPeer `json:"non_peers"`              // who sent most of them in the last minutes, first
	Problems      []string  `json:"problems"`               // what stands in the way of the network's packets
}

// NonPeer is a host that is no peer and sends to the tunnel.
type NonPeer struct {
	Address netip.Addr `json:"address"`
	Packets uint64     `json:"packets"`
}

// Lease is the state of the host's own lease.
type Lease struct {
	Held        bool       `json:"held"` // the store has it
	Reservation bool       `json:"reservation,omitempty"`
	Until       *time.Time `json:"until,omitempty"` // when it ends unless it is renewed; null for a reservation
}

// Passes counts the passes over the kernel.
type Passes struct {
	Count   uint64        `json:"count"`
	Failed  uint64        `json:"failed"`
	Last    time.Time     `json:"last"`
	Took    time.Duration `json:"took_ns"`
	LastErr string        `json:"last_error,omitempty"` // empty: the last pass was clean
}

// Daemon is what only those who may talk to the socket learn.
type Daemon struct {
	PID           int      `json:"pid"`
	SubnetFile    string   `json:"subnet_file"`
	StateDir      string   `json:"state_dir"`
	Kubernetes    bool     `json:"kubernetes,omitempty"` // the store is the Kubernetes API: no prefix, no endpoints
	Prefix        string   `json:"prefix"`
	Endpoints     []string `json:"endpoints"`
	EmbeddedStore bool     `json:"embedded_store,omitempty"`
	Healthz       string   `json:"healthz,omitempty"` // address:port
	ProbePort     uint16   `json:"probe_port,omitempty"`
	IPMasq        bool     `json:"ip_masq"`
	ForwardRules  bool     `json:"forward_rules"`
	ConfigFile    string   `json:"net_config_file,omitempty"` // replaces the configuration in the store
}

// Peer is one subnet of another host.
type Peer struct {
	Subnet     netip.Prefix `json:"subnet"`
	PublicIP   netip.Addr   `json:"public_ip"`
	Host       string       `json:"host,omitempty"`
	Backend    string       `json:"backend"`
	Programmed bool         `json:"programmed"` // in the kernel, as of the last pass
	Reason     string       `json:"reason,omitempty"`
	Probe      *Probe       `json:"probe,omitempty"`
	Session    *Session     `json:"session,omitempty"`
	Traffic    *Traffic     `json:"traffic,omitempty"` // nil: the backend does not count that of single peers
}

// Traffic is what was sent to one peer and received from it since the daemon was started. That of wireguard is counted
// since its device was made, and with the headers of the tunnel.
type Traffic struct {
	SentPackets     uint64 `json:"sent_packets,omitempty"` // 0 with wireguard, which counts bytes only
	SentBytes       uint64 `json:"sent_bytes"`
	ReceivedPackets uint64 `json:"received_packets,omitempty"`
	ReceivedBytes   uint64 `json:"received_bytes"`
}

// Add adds what was counted elsewhere.
func (t Traffic) Add(o Traffic) Traffic {
	return Traffic{t.SentPackets + o.SentPackets, t.SentBytes + o.SentBytes, t.ReceivedPackets + o.ReceivedPackets,
		t.ReceivedBytes + o.ReceivedBytes}
}

// Session is what an encrypted tunnel knows of one peer, a few seconds old.
type Session struct {
	Handshake *time.Time     `json:"handshake,omitempty"` // the last one; null: none yet
	Endpoint  netip.AddrPort `json:"endpoint"`            // that packets are sent to
	Received  int64          `json:"received_bytes"`
	Sent      int64          `json:"sent_bytes"`
	Silent    bool           `json:"silent,omitempty"` // packets are sent to it, and it does not answer handshakes
}

// Probe is what was last measured through the tunnel to one peer.
type Probe struct {
	At        time.Time     `json:"at"`
	Sent      int           `json:"sent"`
	Lost      int           `json:"lost"`
	Refused   int           `json:"refused,omitempty"` // reached the host, where no daemon answers probes
	RoundTrip time.Duration `json:"round_trip_ns"`     // the best of those that came back; 0 if none did
	PathMTU   int           `json:"path_mtu"`          // the largest packet that came back; 0 if none did
	OneWay    bool          `json:"one_way"`           // the peer's probes arrive here, ours do not come back
	Version   string        `json:"version,omitempty"`
}

// ProbeSummary is all that is known from probes.
type ProbeSummary struct {
	Peers    int `json:"peers"` // probed lately
	Failing  int `json:"failing"`
	OneWay   int `json:"one_way"`
	Silent   int `json:"silent"`    // packets arrive there, no daemon answers
	SmallMTU int `json:"small_mtu"` // full packets get lost
}

// Leases are all records of the network at one revision of the store.
type Leases struct {
	Revision int64    `json:"revision"`
	Records  []Record `json:"records"` // sorted by key
}

// Record is one key below PREFIX/subnets/.
type Record struct {
	Key         string         `json:"key"`
	Subnets     []netip.Prefix `json:"subnets"`
	PublicIPs   []netip.Addr   `json:"public_ips"`
	Host        string         `json:"host,omitempty"`
	Identity    string         `json:"identity,omitempty"`
	Backend     string         `json:"backend,omitempty"`
	Reservation bool           `json:"reservation,omitempty"`
	Own         bool           `json:"own,omitempty"`
	Kept        bool           `json:"kept,omitempty"`       // the store has lost it, packets still go there
	Created     int64          `json:"created_revision"`     // 0 where the store is Kubernetes
	Since       *time.Time     `json:"created_at,omitempty"` // of the Node object, where the store is Kubernetes
	Revision    int64          `json:"revision"`
	Lease       string         `json:"store_lease,omitempty"` // of etcd, hexadecimal; empty: it does not expire
	Expires     *time.Time     `json:"expires,omitempty"`     // unless it is renewed; only flannelctl asks etcd for it
	Skipped     string         `json:"skipped,omitempty"`     // why it is no peer
	Ways        []Way          `json:"ways,omitempty"`
}

// Way is a backend that a host receives by.
type Way struct {
	Subnet netip.Prefix    `json:"subnet"`
	Type   string          `json:"type"` // that of the record comes first
	Data   json.RawMessage `json:"data,omitempty"`
}

// Event is one line that the daemon has logged.
type Event struct {
	Time    time.Time `json:"time"`
	Level   string    `json:"level"`
	Message string    `json:"message"`
	Detail  string    `json:"detail,omitempty"` // key=value pairs
}

// Store is how to reach the store. Whoever gets it must not show it.
type Store struct {
	Kubernetes bool `json:"kubernetes,omitempty"` // it is the Kubernetes API; all else is empty

	Endpoints []string `json:"endpoints"`
	Prefix    string   `json:"prefix"`
	CAFile    string   `json:"ca_file,omitempty"`
	CertFile  string   `json:"cert_file,omitempty"`
	KeyFile   string   `json:"key_file,omitempty"`
	Username  string   `json:"username,omitempty"`
	Password  string   `json:"password,omitempty"`
}

// Verdict is what is wrong with a network configuration; empty: nothing.
type Verdict struct {
	Problem string `json:"problem"`
}

// Drained tells what was given back.
type Drained struct {
	Subnets []netip.Prefix `json:"subnets"`
	Removed []string       `json:"removed"` // kernel objects
}

// Rotated tells the new key of this host's.
type Rotated struct {
	PublicKey string `json:"public_key"`
}

// Problem is the body of every answer that is neither 200 nor PathReady's.
type Problem struct {
	Error string `json:"error"`
}
