package cloud_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_4/types"
	"sigs.k8s.io/yaml"
)

// butane is the part of the Butane specifications (fcos 1.5.0 and flatcar 1.1.0, which both become Ignition 3.4.0) that the
// configurations of this folder use. Anything else in them is an error.
type butane struct {
	Variant  string `json:"variant"`
	Version  string `json:"version"`
	Ignition struct {
		Config struct {
			Merge []resource `json:"merge"`
		} `json:"config"`
	} `json:"ignition"`
	Storage struct {
		Directories []struct {
			Path string `json:"path"`
			Mode *int   `json:"mode"`
		} `json:"directories"`
		Files []struct {
			Path     string   `json:"path"`
			Mode     *int     `json:"mode"`
			Contents resource `json:"contents"`
		} `json:"files"`
	} `json:"storage"`
	Systemd struct {
		Units []struct {
			Name    string `json:"name"`
			Enabled *bool  `json:"enabled"`
		} `json:"units"`
	} `json:"systemd"`
}

// resource is a text: in place, in a file beside the configuration, or somewhere to be fetched from.
type resource struct {
	Inline *string `json:"inline"`
	Local  *string `json:"local"`
	Source *string `json:"source"`
}

// variants are the versions of the specification by variant.
var variants = map[string]string{"fcos": "1.5.0", "flatcar": "1.1.0"}

// translate reads a Butane configuration and writes it as Ignition. Local files are looked for in filesDir.
func translate(file, filesDir string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var b butane
	if err := yaml.UnmarshalStrict(text, &b); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if want := variants[b.Variant]; want == "" || b.Version != want {
		return nil, fmt.Errorf("%s: variant %q in version %q", file, b.Variant, b.Version)
	}
	out := types.Config{Ignition: types.Ignition{Version: types.MaxVersion.String()}}
	for _, m := range b.Ignition.Config.Merge {
		r, err := m.translate(filesDir)
		if err != nil {
			return nil, err
		}
		out.Ignition.Config.Merge = append(out.Ignition.Config.Merge, r)
	}
	for _, d := range b.Storage.Directories {
		out.Storage.Directories = append(out.Storage.Directories, types.Directory{Node: types.Node{Path: d.Path}, DirectoryEmbedded1: types.DirectoryEmbedded1{Mode: d.Mode}})
	}
	for _, f := range b.Storage.Files {
		r, err := f.Contents.translate(filesDir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		out.Storage.Files = append(out.Storage.Files, types.File{Node: types.Node{Path: f.Path}, FileEmbedded1: types.FileEmbedded1{Mode: f.Mode, Contents: r}})
	}
	for _, u := range b.Systemd.Units {
		out.Systemd.Units = append(out.Systemd.Units, types.Unit{Name: u.Name, Enabled: u.Enabled})
	}
	return json.Marshal(out)
}

func (r resource) translate(filesDir string) (types.Resource, error) {
	switch {
	case r.Source != nil && r.Inline == nil && r.Local == nil:
		return types.Resource{Source: r.Source}, nil
	case r.Inline != nil && r.Source == nil && r.Local == nil:
		return data([]byte(*r.Inline)), nil
	case r.Local != nil && r.Source == nil && r.Inline == nil:
		text, err := os.ReadFile(filepath.Join(filesDir, *r.Local))
		return data(text), err
	}
	return types.Resource{}, fmt.Errorf("contents must be one of inline, local and source")
}

// data is a text as a URL.
func data(text []byte) types.Resource {
	return types.Resource{Source: util.StrToPtr("data:;base64," + base64.StdEncoding.EncodeToString(text))}
}
