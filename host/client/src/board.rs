//! Boards that are plugged in, found by their USB identity.

use serialport::{SerialPortInfo, SerialPortType};

use crate::exchange::ExchangeError;

/// The test identity of pid.codes: vendor and product.
pub const USB_IDENTITY: (u16, u16) = (0x1209, 0x0001);
/// That identity is shared with others; this product string is ours.
pub const PRODUCT: &str = "sshsm";

/// A board on a serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// The port: `/dev/ttyACM0`, `COM3`.
    pub path: String,
    /// The serial number of its USB identity, if the system reports it.
    pub usb_serial: Option<String>,
}

/// The boards that are plugged in, in the order of their ports.
///
/// # Errors
/// [`ExchangeError::Enumeration`] when the system does not list its serial ports.
pub fn boards() -> Result<Vec<Board>, ExchangeError> {
    serialport::available_ports().map(only_boards).map_err(|error| ExchangeError::Enumeration(error.into()))
}

/// The one board that is plugged in.
///
/// # Errors
/// [`ExchangeError::NoBoard`] and [`ExchangeError::ManyBoards`] when it is not one.
pub fn only_board() -> Result<Board, ExchangeError> {
    one(boards()?)
}

fn one(mut boards: Vec<Board>) -> Result<Board, ExchangeError> {
    match (boards.pop(), boards.is_empty()) {
        (Some(board), true) => Ok(board),
        (None, _) => Err(ExchangeError::NoBoard),
        (Some(last), false) => {
            boards.push(last);
            let names = boards.iter().map(|board| match &board.usb_serial {
                Some(serial) => format!("serial:{} ({serial})", board.path),
                None => format!("serial:{}", board.path),
            });
            Err(ExchangeError::ManyBoards(names.collect()))
        }
    }
}

fn only_boards(ports: Vec<SerialPortInfo>) -> Vec<Board> {
    let mut boards: Vec<Board> = ports
        .into_iter()
        .filter_map(|port| match port.port_type {
            // macOS lists each port twice; the "tty" one waits for a carrier that never comes.
            SerialPortType::UsbPort(usb)
                if (usb.vid, usb.pid) == USB_IDENTITY
                    && usb.product.as_deref() == Some(PRODUCT)
                    && !port.port_name.starts_with("/dev/tty.") =>
            {
                Some(Board { path: port.port_name, usb_serial: usb.serial_number })
            }
            _ => None,
        })
        .collect();
    boards.sort_by(|one, other| one.path.cmp(&other.path));
    boards
}

#[cfg(test)]
mod tests {
    use super::*;
    use serialport::UsbPortInfo;

    fn port(path: &str, (vid, pid): (u16, u16), product: Option<&str>) -> SerialPortInfo {
        let usb = UsbPortInfo {
            vid,
            pid,
            serial_number: Some("E660".into()),
            manufacturer: None,
            product: product.map(str::to_owned),
        };
        SerialPortInfo { port_name: path.into(), port_type: SerialPortType::UsbPort(usb) }
    }

    #[test]
    fn a_board_has_the_identity_and_the_product_string() {
        let ports = vec![
            port("/dev/ttyACM3", USB_IDENTITY, Some(PRODUCT)),
            port("/dev/ttyACM0", USB_IDENTITY, Some("somebody's experiment")),
            port("/dev/ttyACM1", USB_IDENTITY, None),
            port("/dev/ttyACM2", (0x2e8a, 0x000a), Some(PRODUCT)),
            SerialPortInfo { port_name: "/dev/ttyS0".into(), port_type: SerialPortType::PciPort },
            port("/dev/tty.usbmodem1", USB_IDENTITY, Some(PRODUCT)),
            port("/dev/cu.usbmodem1", USB_IDENTITY, Some(PRODUCT)),
        ];
        let paths: Vec<_> = only_boards(ports).into_iter().map(|board| board.path).collect();
        assert_eq!(paths, ["/dev/cu.usbmodem1", "/dev/ttyACM3"]);
    }

    #[test]
    fn none_and_several_are_told_apart_and_several_are_named() {
        let boards = |paths: &[&str]| {
            paths.iter().map(|path| Board { path: (*path).into(), usb_serial: Some("E66".into()) }).collect()
        };
        assert_eq!(one(boards(&["/dev/ttyACM0"])).unwrap().path, "/dev/ttyACM0");
        assert!(matches!(one(boards(&[])), Err(ExchangeError::NoBoard)));
        let several = one(boards(&["/dev/ttyACM0", "/dev/ttyACM1"])).unwrap_err().to_string();
        assert!(several.contains("serial:/dev/ttyACM0 (E66), serial:/dev/ttyACM1 (E66)"), "{several}");
    }
}
