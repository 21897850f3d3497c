package subnet_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"flanneld/subnet"
)

// FuzzState reads state and peers files of any content: the daemon starts with an identity, whatever they say.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"Identity":"me","Network":"/net","Config":"{\"Network\":\"10.5.0.0/16\"}","Own":{"Leases":[{"Subnet":"10.5.3.0/24","PublicIP":"192.0.2.1"}]}}`),
		[]byte(`{"Cluster":1,"Revision":7}`+"\n"+`{"Leases":[{"Subnet":"10.5.4.0/24","PublicIP":"192.0.2.2"}]}`))
	f.Add([]byte(`{"Identity":"me"}`), []byte(`{"Cluster":1,"Revision":7,"Records":1,"Claims":null,"Bad":[{"Key":"subnets/x"}],"Trail":[{"Revision":5,"Put":{"Leases":[{"Subnet":"10.5.4.0/24","PublicIP":"192.0.2.2"}],"Key":"subnets/10.5.4.0-24","Revision":5,"Created":5,"LeaseID":7}}]}`+
		"\n"+`{"Leases":[{"Subnet":"10.5.4.0/24","PublicIP":"192.0.2.2"}],"Key":"subnets/10.5.4.0-24","Revision":5,"Created":5,"LeaseID":7}`))
	f.Add([]byte(`{"Identity":"me"}`), []byte(`{"Cluster":1,"Revision":7,"Records":1}`+"\n"+`{"Leases":[{"Subnet":"10.5.4.0/24","PublicIP":"192.0.2.2"}],"Key":"subnets/10.5.4.0-24","Revision":5}`+
		"\n"+`{"Leases":[{"Subnet":"10.5.4.0/24","PublicIP":"192.0.2.3"}],"Key":"subnets/10.5.4.0-24","Revision":8}`+"\n"+`{"Lea`))
	f.Add([]byte(`{"Identity":"me","MACs":{"a":"b"},"Networks":["x"]}`), []byte(`{}{"Leases":null}`))
	f.Fuzz(func(t *testing.T, state, peers []byte) {
		dir := t.TempDir()
		for ending, text := range map[string][]byte{".json": state, ".peers": peers} {
			if err := os.WriteFile(filepath.Join(dir, "run-flannel-subnet.env"+ending), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := subnet.OpenState(dir, "/run/flannel/subnet.env")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		st, _ := s.Load()
		if st.Identity == "" {
			t.Error("no identity")
		}
		_ = st.Usable("/net", time.Now())
		for _, r := range append(st.Memory.Peers(""), st.Own) {
			_ = r.Key() + r.String()
		}
		if err := s.Save(st); err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
		if err := s.SaveMemory(st.Memory); err != nil {
			t.Errorf("the peers that were read cannot be written: %v", err)
		}
	})
}
