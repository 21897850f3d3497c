// Render prints the documents of the Helm chart as "helm template" does, for tests that apply them.
package main

import (
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: render CHART NAMESPACE VALUES, the values in YAML")
	}
	if err := render(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func render(dir, namespace, text string) error {
	chart, err := loader.Load(dir)
	if err != nil {
		return err
	}
	var values map[string]any
	if err := yaml.Unmarshal([]byte(text), &values); err != nil {
		return fmt.Errorf("read values: %w", err)
	}
	all, err := util.ToRenderValues(chart, values, common.ReleaseOptions{Name: "flannel", Namespace: namespace},
		common.DefaultCapabilities)
	if err != nil {
		return err
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(name, ".tpl") && strings.TrimSpace(files[name]) != "" {
			fmt.Printf("---\n%s\n", files[name])
		}
	}
	return nil
}
