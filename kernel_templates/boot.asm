; The kernel's three front doors.
; entry state: 32-bit protected mode, flat segments, paging off (Multiboot 1, 3.2; the PVH boot ABI; our own loader)
; clobbers:    everything
; exit state:  ESP is the BSP's stack, flat segments of our own, jumps to main
.section .text, "ax"
.code32

; Multiboot 1 header: it must lie within the first 8 KiB of the file, on a 4-byte boundary.
.align 4
multiboot_header:
    .long 0x1BADB002
    .long 0
    .long 0xFFFFFFFF & -(0x1BADB002 + 0)

; Multiboot 1: EAX is the magic, EBX the information block.
; Our disk loader comes in here too, with "KGEN" in EAX, and our UEFI application, with "KGEU".
entry:
    mov edx, BootPath.MULTIBOOT
    cmp eax, 0x2BADB002
    je boot_common
    mov edx, BootPath.DISK
    cmp eax, DISK_MAGIC
    je boot_common
    mov edx, BootPath.UEFI
    cmp eax, UEFI_MAGIC
    je boot_common
    mov edx, BootPath.UNKNOWN
    jmp boot_common

; PVH: EBX is start_info. qboot leaves Multiboot's magic in EAX here, so only start_info's own magic distinguishes them.
pvh_entry:
    mov edx, BootPath.PVH
    cmp dword ptr [ebx], 0x336EC578
    je boot_common
    jmp entry

boot_common:
    cli
    cld
    lgdt [gdt_pointer]
    ljmp CODE_SELECTOR, .reloaded
.reloaded:
    mov eax, DATA_SELECTOR
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov esp, stacks + STACK_SIZE
    ; a loader need not have done it: Xen's of 4.14 did not
    xor eax, eax
    mov edi, bss_begin
    mov ecx, bss_end
    sub ecx, edi
    shr ecx, 2
    rep stosd
    mov dword ptr [results + Results.boot_path], edx
    cmp edx, BootPath.PVH
    jne .no_start_info
    ; start_info's 64-bit address of ACPI's root pointer
    cmp dword ptr [ebx + 36], 0
    jne .no_start_info
    mov eax, dword ptr [ebx + 32]
    mov dword ptr [acpi_rsdp], eax
.no_start_info:
    cmp edx, BootPath.UEFI
    jne .no_handover
    mov esi, ebx
    mov edi, handover
    mov ecx, Handover.SIZE
    rep movsb
    mov eax, dword ptr [handover + Handover.rsdp]
    mov dword ptr [acpi_rsdp], eax
.no_handover:
    call find_command_line
    jmp main

; Looks for isa-debug-exit=0xPORT and attend=0x1 in the loader's command line.
; in: EDX boot path, EBX the loader's information; out: debug_exit_port, attended; clobbers: EAX, ECX, EDX, ESI, EDI
find_command_line:
    cmp edx, BootPath.MULTIBOOT
    je .multiboot
    cmp edx, BootPath.PVH
    jne .none
    mov esi, dword ptr [ebx + 24]
    jmp .have
.multiboot:
    ; flags bit 2: the command line is valid
    test dword ptr [ebx], 4
    jz .none
    mov esi, dword ptr [ebx + 16]
.have:
    test esi, esi
    jz .none
    push esi
    mov edi, debug_exit_key
    call .find
    mov dword ptr [debug_exit_port], eax
    pop esi
    mov edi, attend_key
    call .find
    mov dword ptr [attended], eax
.none:
    ret
; in: ESI text, EDI key; out: EAX the number after it, 0 where it is not there
.find:
    mov edx, 4096
.scan:
    ; compare the key at every position
    xor ecx, ecx
.compare:
    mov al, byte ptr [edi + ecx]
    test al, al
    jz .value
    cmp al, byte ptr [esi + ecx]
    jne .next
    inc ecx
    jmp .compare
.next:
    cmp byte ptr [esi], 0
    je .missing
    inc esi
    dec edx
    jnz .scan
.missing:
    xor eax, eax
    ret
.value:
    add esi, ecx
    xor eax, eax
    mov edx, 4
.digit:
    movzx ecx, byte ptr [esi]
    or ecx, 0x20
    sub ecx, '0'
    cmp ecx, 9
    jbe .add
    sub ecx, 'a' - '0' - 10
    cmp ecx, 10
    jb .done
    cmp ecx, 15
    ja .done
.add:
    shl eax, 4
    or eax, ecx
    inc esi
    dec edx
    jnz .digit
.done:
    ret
