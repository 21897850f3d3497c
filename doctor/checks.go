package doctor

import "errors"

// check looks at one thing.
type check struct {
	name string
	run  func(*Facts) Finding
}

// checks are made in this order: what others depend on comes first.
var checks = []check{
	{"daemon", checkDaemon}, {"ready", checkReady}, {"state", checkState},
	{"store", checkStore}, {"store-rights", checkRights}, {"clock", checkClock}, {"configuration", checkConfig},
	{"lease", checkLease}, {"records", checkRecords}, {"duplicates", checkDuplicates}, {"subnet-file", checkEnv},
	{"interface", checkInterface}, {"device", checkDevice}, {"hardware-address", checkMAC}, {"drift", checkDrift},
	{"peers", checkPeers}, {"overlap", checkOverlap}, {"leftovers", checkLeftovers},
	{"forwarding", checkForwarding}, {"rp-filter", checkReversePath}, {"forward-chain", checkForwardChain},
	{"firewall", checkFirewall},
	{"cni", checkCNI}, {"bridge", checkBridge}, {"bridge-addresses", checkBridgeAddresses}, {"bridge-mtu", checkBridgeMTU},
	{"docker-routing", checkDockerRouting},
	{"neighbour-table", checkNeighbours}, {"connection-table", checkConntrack}, {"checksums", checkChecksums},
	{"tunnel", checkTunnel}, {"handshakes", checkHandshakes}, {"path-mtu", checkPathMTU}, {"versions", checkVersions},
}

// Diagnose makes all checks.
func Diagnose(f *Facts) []Finding {
	var out []Finding
	for _, c := range checks {
		out = append(out, c.make(f))
	}
	return out
}

func (c check) make(f *Facts) Finding {
	r := f.inCluster(c.run(f))
	r.Check = c.name
	if r.Result == Good || r.Result == Skipped {
		r.Fix, r.Repair = "", nil
	}
	return r
}

// noDaemon is the finding of a check that needs an answer of the daemon, if there is none.
func (f *Facts) noDaemon() (Finding, bool) {
	switch {
	case f.DaemonErr == nil:
		return Finding{}, false
	case f.Denied() != nil:
		return skip("only root may ask the daemon"), true
	}
	return skip("no daemon runs"), true
}

// ErrKubernetes says that the records are in the Kubernetes API, where a diagnosis does not look itself: it goes by
// what the daemon remembers of the peers.
var ErrKubernetes = errors.New("the store is the Kubernetes API")

// inKubernetes reports whether the store is the Kubernetes API.
func (f *Facts) inKubernetes() bool { return errors.Is(f.StoreErr, ErrKubernetes) }

// noStore is the finding of a check that needs the records of the store, if they are not known.
func (f *Facts) noStore() (Finding, bool) {
	if f.StoreErr == nil {
		return Finding{}, false
	}
	if f.inKubernetes() {
		return skip("the store is the Kubernetes API: kubectl get nodes"), true
	}
	return skip("the store is not reachable"), true
}
