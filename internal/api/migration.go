package api

import (
	"strings"

	migrationv1 "k8s.io/api/storagemigration/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A StorageVersionMigration asks for all objects of a resource to be stored anew, as they are stored now (KEP-4192).
func migrationRows() []*Resource {
	return []*Resource{of[migrationv1.StorageVersionMigration, migrationv1.StorageVersionMigrationList](Resource{
		Group: "storagemigration.k8s.io", Version: "v1", Kind: "StorageVersionMigration", Plural: "storageversionmigrations", Key: "storageversionmigrations", Status: true, StatusAlone: true,
		Validate: validateMigration, ValidateUpdate: validateMigrationUpdate, ValidateStatus: validateMigrationStatus,
	})}
}

func validateMigration(o Object) (errs field.ErrorList) {
	r, p := o.(*migrationv1.StorageVersionMigration).Spec.Resource, field.NewPath("spec", "resource")
	if r.Resource == "" {
		errs = append(errs, field.Required(p.Child("resource"), "resource is required"))
	} else {
		errs = append(errs, each(p.Child("resource"), r.Resource, validation.IsDNS1035Label(r.Resource))...)
	}
	if r.Group != "" {
		errs = append(errs, dnsSubdomain(r.Group, p.Child("group"))...)
	}
	return errs
}

func validateMigrationUpdate(o, old Object) field.ErrorList {
	m, was := o.(*migrationv1.StorageVersionMigration), old.(*migrationv1.StorageVersionMigration)
	return append(validateMigration(o), immutable(m.Spec.Resource, was.Spec.Resource, field.NewPath("spec", "resource"))...)
}

// validateMigrationStatus: a migration ends once, as a success or a failure, and goes by one resourceVersion.
func validateMigrationStatus(o, old Object) field.ErrorList {
	s, was, p := &o.(*migrationv1.StorageVersionMigration).Status, &old.(*migrationv1.StorageVersionMigration).Status, field.NewPath("status")
	errs := metavalidation.ValidateConditions(s.Conditions, p.Child("conditions"))
	if was.ResourceVersion != "" {
		errs = append(errs, immutable(s.ResourceVersion, was.ResourceVersion, p.Child("resourceVersion"))...)
	}
	if s.ResourceVersion != "" && strings.Trim(s.ResourceVersion, "0123456789") != "" {
		errs = append(errs, field.Invalid(p.Child("resourceVersion"), s.ResourceVersion, "must be a number"))
	}
	succeeded, failed := isTrue(s.Conditions, string(migrationv1.MigrationSucceeded)), isTrue(s.Conditions, string(migrationv1.MigrationFailed))
	running := isTrue(s.Conditions, string(migrationv1.MigrationRunning))
	switch {
	case succeeded && failed:
		errs = append(errs, field.Invalid(p.Child("conditions"), s.Conditions, "Both success and failed conditions cannot be true at the same time"))
	case running && (succeeded || failed):
		errs = append(errs, field.Invalid(p.Child("conditions"), s.Conditions, "Running condition cannot be true when success or failed condition is true"))
	}
	for _, end := range []string{string(migrationv1.MigrationSucceeded), string(migrationv1.MigrationFailed)} {
		if isTrue(was.Conditions, end) && !isTrue(s.Conditions, end) {
			errs = append(errs, field.Invalid(p.Child("conditions"), s.Conditions, end+" condition cannot be set to false once it is true"))
		}
	}
	return errs
}

func isTrue(list []metav1.Condition, kind string) bool {
	for i := range list {
		if list[i].Type == kind {
			return list[i].Status == metav1.ConditionTrue
		}
	}
	return false
}
