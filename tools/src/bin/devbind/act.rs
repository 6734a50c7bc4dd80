//! `devbind bind`, `unbind` and `restore`: checks all functions first, then changes each.

use crate::{
    BindArgs, ChangeArgs, Global, Target, module, named, noiommu,
    owner::{self, Owner},
    print_error, report,
    state::{Record, State},
    usage::{Host, Use},
};
use anyhow::{Context, anyhow, bail};
use std::fmt;
use upcie_core::pci::{Bdf, Binder, Function, is_vfio_driver};

/// Runs `devbind bind`.
pub fn bind(global: &Global, args: &BindArgs, owner: Option<&Owner>) -> anyhow::Result<bool> {
    let driver = args.driver.as_str();
    let functions = check_all(&named::addresses(&args.target.functions), &args.target.options, |function| {
        // A function that has the driver already is not changed, so nobody loses it.
        if function.driver.as_deref() == Some(driver) {
            return Ok(Check::Nothing);
        }
        if !(args.unsafe_noiommu && function.iommu_group.is_none()) {
            Binder::check(function, driver)?;
        }
        Ok(Check::InUse)
    })?;
    let Some(functions) = functions else { return Ok(false) };
    let state = State::open(&global.state_dir, global.dry_run)?;
    if args.unsafe_noiommu && functions.iter().any(|function| function.iommu_group.is_none()) {
        noiommu::enable(global, &state, driver)?;
    } else if functions.iter().any(|function| function.driver.as_deref() != Some(driver)) {
        module::load(driver, global.dry_run, global.verbose)?;
    }
    let mut binder = binder(global, &args.target.options);
    let mut given = None;
    let all = for_each(&functions, |function| {
        if function.driver.as_deref() == Some(driver) {
            report(format_args!("{}: is bound to {driver} already", function.bdf));
        } else {
            change(global, &state, function, Some(driver), |function| binder.bind(function, driver))?;
        }
        report_group(function)?;
        if let Some(owner) = owner {
            let failed =
                || format!("{}: bound to {driver}, but could not be given to {}", function.bdf, owner.name());
            owner.give(global, function.bdf).with_context(failed)?;
            given = Some(owner::is_noiommu(&Function::at(function.bdf)?));
        }
        Ok(())
    });
    // Turns the mode off again if no function was bound.
    noiommu::restore(global, &state)?;
    if let (Some(owner), Some(noiommu)) = (owner, given) {
        report(format_args!("{}", owner.limits(noiommu)));
    }
    Ok(all)
}

/// Runs `devbind unbind`.
pub fn unbind(global: &Global, target: &Target) -> anyhow::Result<bool> {
    let functions = check_all(&named::addresses(&target.functions), &target.options, |function| {
        Ok(if function.driver.is_some() { Check::InUse } else { Check::Nothing })
    })?;
    let Some(functions) = functions else { return Ok(false) };
    let state = State::open(&global.state_dir, global.dry_run)?;
    let mut binder = binder(global, &target.options);
    Ok(for_each(&functions, |function| {
        if function.driver.is_none() {
            report(format_args!("{}: has no driver already", function.bdf));
            return Ok(());
        }
        change(global, &state, function, None, |function| binder.unbind(function))
    }))
}

/// Runs `devbind restore`.
pub fn restore(global: &Global, functions: &[Bdf], options: &ChangeArgs) -> anyhow::Result<bool> {
    // Without the lock, which only root can take, where there is nothing to do.
    let seen = State::open(&global.state_dir, true)?;
    if functions.is_empty() && seen.functions()?.is_empty() && seen.parameter_before()?.is_none() {
        report(format_args!("There is nothing to restore."));
        return Ok(true);
    }
    let state = State::open(&global.state_dir, global.dry_run)?;
    let recorded = state.functions()?;
    if functions.is_empty() && recorded.is_empty() {
        report(format_args!("There is no driver to restore."));
        noiommu::restore(global, &state)?;
        return Ok(true);
    }
    let wanted = if functions.is_empty() { &recorded } else { functions };
    let record = |function: &Function| -> anyhow::Result<Record> {
        let record = state.record(function.bdf)?;
        let record = record
            .context("there is no record of an earlier driver: devbind has not changed this function")?;
        if !record.is_for(function) {
            bail!(
                "the record is of another device at this address: remove its file in {}",
                global.state_dir.display()
            );
        }
        Ok(record)
    };
    let found = check_all(wanted, options, |function| {
        let same = record(function)?.binding() == function.binding()?;
        Ok(if same { Check::Nothing } else { Check::InUse })
    })?;
    let Some(found) = found else { return Ok(false) };
    let mut binder = binder(global, options);
    let all = for_each(&found, |function| {
        let before = record(function)?.binding();
        if let Some(driver) = &before.driver {
            module::load(driver, global.dry_run, global.verbose)?;
        }
        binder.restore(function, &before)?;
        if !global.dry_run {
            state.forget(function.bdf)?;
        }
        report_change(global, function, before.driver.as_deref());
        Ok(())
    });
    noiommu::restore(global, &state)?;
    Ok(all)
}

/// Checks before a function is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// None: the function will not be changed.
    Nothing,
    /// The function must not be in use, unless --force is given.
    InUse,
}

/// Looks up the functions and checks each. Returns `None` after it has printed why functions can't be
/// changed.
fn check_all(
    wanted: &[Bdf],
    options: &ChangeArgs,
    mut check: impl FnMut(&Function) -> anyhow::Result<Check>,
) -> anyhow::Result<Option<Vec<Function>>> {
    let host = Host::now().context("reading what is mounted")?;
    let mut wanted = wanted.to_vec();
    wanted.sort();
    wanted.dedup();
    let mut functions = Vec::new();
    let mut check_one = |bdf| -> anyhow::Result<()> {
        let function = Function::at(bdf)?;
        function.check_not_being_unbound()?;
        let checked = check(&function).map_err(|error| with_address(bdf, error));
        // Report a use first: advice on other errors would help to do what must not be done.
        if !matches!(checked, Ok(Check::Nothing)) && !options.force {
            let mut uses = host.uses(&function);
            if uses.is_empty() {
                uses = host.claims(&function);
            }
            if !uses.is_empty() {
                return Err(in_use(bdf, &uses));
            }
        }
        checked?;
        functions.push(function);
        Ok(())
    };
    let refused: Vec<_> = wanted.iter().filter_map(|&bdf| check_one(bdf).err()).collect();
    for error in &refused {
        print_error(format_args!("{error:#}"));
    }
    if refused.is_empty() {
        return Ok(Some(functions));
    }
    if wanted.len() > refused.len() {
        print_error(format_args!("nothing was changed, including the other functions"));
    }
    Ok(None)
}

/// Makes the error of a function that is in use.
fn in_use(bdf: Bdf, uses: &[Use]) -> anyhow::Error {
    let uses: Vec<_> = uses.iter().map(Use::to_string).collect();
    anyhow!("{bdf} is in use: {}; stop that first, or use --force", uses.join(", "))
}

/// Does `work` on each function, even after an error; returns true if all succeeded.
fn for_each(functions: &[Function], mut work: impl FnMut(&Function) -> anyhow::Result<()>) -> bool {
    let mut all = true;
    for function in functions {
        if let Err(error) = work(function) {
            print_error(format_args!("{:#}", with_address(function.bdf, error)));
            all = false;
        }
    }
    all
}

/// Adds the function's address to an error. Errors of the libraries have it already.
fn with_address(bdf: Bdf, error: anyhow::Error) -> anyhow::Error {
    if error.to_string().starts_with(&bdf.to_string()) { error } else { error.context(bdf.to_string()) }
}

/// Changes the driver of a function, and records the old one.
fn change(
    global: &Global,
    state: &State,
    function: &Function,
    driver: Option<&str>,
    work: impl FnOnce(&Function) -> upcie_core::Result<()>,
) -> anyhow::Result<()> {
    let record = Record::now(function)?;
    let is_new = !global.dry_run && state.keep(function, &record)?;
    if let Err(error) = work(function) {
        // Drop the record if nothing has changed. After a timeout the kernel may still change the driver.
        let is_over = !matches!(error.failure(), upcie_core::Failure::Timeout { .. });
        if is_new && is_over && Record::now(function).is_ok_and(|now| now == record) {
            state.forget(function.bdf)?;
        }
        return Err(error.into());
    }
    report_change(global, function, driver);
    Ok(())
}

/// Prints the change of a function.
fn report_change(global: &Global, before: &Function, driver: Option<&str>) {
    let name = |driver: Option<&str>| driver.unwrap_or("no driver").to_owned();
    let dry = if global.dry_run { " (dry run: nothing was changed)" } else { "" };
    report(format_args!("{}: {} -> {}{dry}", before.bdf, name(before.driver.as_deref()), name(driver)));
}

/// Prints which other functions of its group prevent a user from opening a VFIO function.
fn report_group(function: &Function) -> anyhow::Result<()> {
    let function = Function::at(function.bdf)?;
    if !function.driver.as_deref().is_some_and(is_vfio_driver) {
        return Ok(());
    }
    let Some(group) = &function.iommu_group else { return Ok(()) };
    let harmless = |driver: &str| is_vfio_driver(driver) || matches!(driver, "pci-stub" | "pcieport");
    let others = group.members.iter().filter_map(|member| Some((&member.name, member.driver.as_deref()?)));
    let others: Vec<_> = others
        .filter(|(_, driver)| !harmless(driver))
        .map(|(name, driver)| format!("{name} ({driver})"))
        .collect();
    if !others.is_empty() {
        report(format_args!(
            "{}: VFIO can open it only after these functions of IOMMU group {} have left their drivers: {}",
            function.bdf,
            group.number,
            others.join(", ")
        ));
    }
    Ok(())
}

fn binder(global: &Global, options: &ChangeArgs) -> Binder<'static> {
    let (dry_run, tell) = (global.dry_run, global.dry_run || global.verbose);
    let binder = Binder::new().dry_run(dry_run).force(options.force).deadline(options.timeout);
    binder.observer(move |path, value| {
        if tell {
            let value: &dyn fmt::Display = if value == "\n" { &"(nothing)" } else { &value };
            report(format_args!("{} <- {value}", path.display()));
        }
    })
}
