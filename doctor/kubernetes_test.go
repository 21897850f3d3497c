package doctor_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/doctor"
	"flanneld/subnet"
)

// kubernetesFacts are those of a node whose network is in the Kubernetes API: the peers are what the daemon remembers.
func kubernetesFacts() *doctor.Facts {
	lease := subnet.Lease{Subnet: netip.MustParsePrefix("10.244.16.0/20"), Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.2"), BackendType: "vxlan"}}
	return &doctor.Facts{
		Now: time.Now(), StoreErr: doctor.ErrKubernetes,
		State: subnet.State{
			Config: `{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}`,
			Peers:  []subnet.Record{{Host: "node2", Leases: []subnet.Lease{lease}}},
		},
		Status: api.Status{Daemon: &api.Daemon{ConfigFile: "/etc/kube-flannel/net-conf.json"}},
	}
}

func byCheck(f *doctor.Facts) map[string]doctor.Finding {
	out := map[string]doctor.Finding{}
	for _, finding := range doctor.Diagnose(f) {
		out[finding.Check] = finding
	}
	return out
}

func TestNothingIsAskedOfEtcdWhereTheStoreIsTheKubernetesAPI(t *testing.T) {
	f := kubernetesFacts()
	f.Derive()
	if len(f.Peers) != 1 {
		t.Errorf("peers %v, want the one that the daemon remembers, whatever the length of its podCIDR", f.Peers)
	}
	found := byCheck(f)
	for check, want := range map[string]doctor.Verdict{
		"store": doctor.Good, "configuration": doctor.Good,
		"store-rights": doctor.Skipped, "clock": doctor.Skipped, "lease": doctor.Failure, "records": doctor.Skipped, "duplicates": doctor.Skipped,
	} {
		if got := found[check]; got.Result != want {
			t.Errorf("%s: %+v, want %v", check, got, want)
		}
	}
	for _, finding := range found {
		if strings.Contains(finding.Fix, "etcdctl") {
			t.Errorf("%s advises to use etcdctl: %+v", finding.Check, finding)
		}
	}
}

func TestAnAPIServerThatIsAwayIsNamed(t *testing.T) {
	f := kubernetesFacts()
	since := time.Now().Add(-time.Minute)
	f.Status.StoreSince, f.Status.StoreReason = &since, "connection refused"
	f.Derive()
	if got := byCheck(f)["store"]; got.Result != doctor.Failure || !strings.Contains(got.Evidence, "connection refused") || !strings.HasPrefix(got.Fix, "kubectl") {
		t.Errorf("got %+v", got)
	}
}
